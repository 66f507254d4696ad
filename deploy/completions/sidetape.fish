# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sidetape_global_optspecs
    string join \n h/help V/version
end

function __fish_sidetape_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sidetape_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sidetape_using_subcommand
    set -l cmd (__fish_sidetape_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sidetape -n "__fish_sidetape_needs_command" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_needs_command" -s V -l version -d 'Print version'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "serve" -d 'Run the daemon'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "demo" -d 'Record a real call through a daemon of its own, to see that it works'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "replay" -d 'Send a capture\'s RTP to a running daemon'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "recover" -d 'Finish what a spool directory holds, without a daemon'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "inspect" -d 'Say what a recording holds, in words and as a picture'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "load" -d 'Send many calls at once to a running daemon, and check their recordings'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "check" -d 'Try the configuration for real'
complete -c sidetape -n "__fish_sidetape_needs_command" -f -a "ready" -d 'Ask a running daemon whether it takes calls, for health checks'
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l cache-enabled -d 'false: frames are accepted and dropped, nothing is kept [default: true]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l storage-type -d 'where recordings are published: local, gcs, s3 or azure [default: local]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l storage-path -d 'directory, or bucket or container with an optional /prefix [default: ./recordings]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l backup-storage-type -d 'where recordings go while the first storage fails: local, gcs, s3 or azure [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l backup-storage-path -d 'its directory, or bucket or container with an optional /prefix [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l backup-after-secs -d 'seconds for which the first storage must have failed until the backup is used [default: 300]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l object-key -d 'name of a recording: {id} (conversation id, else connection id), {connection_id}, {conversation_id}, {tenant}, and {yyyy} {mm} {dd} {hh} of the start in UTC [default: conversation_{id}_merged.opus]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l spool-dir -d 'where what was received is kept until it is published [default: ./spool]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l udp-listen -d 'UDP address for frames; empty: no UDP [default: 127.0.0.1:5055]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l allow-remote -d 'true: addresses that are not loopback may be listened on; see tap-key and http-token for who may use them [default: false]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l tap-key -d 'shared secret of at least 16 bytes: frames over UDP must be signed with it; better set by the variable, flags are visible to other users [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l unix-dgram -d 'Unix datagram socket for frames [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l unix-stream -d 'Unix stream socket for frames, each behind its length as u16 [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l unix-allow-uids -d 'user ids, separated by commas, whose processes alone may connect to Unix stream sockets [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l http-listen -d 'health, metrics, control and stretches of live calls over HTTP: host:port or unix:/path [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l http-token -d 'secret of at least 16 characters that HTTP clients must show as a bearer token, except for health; better set by the variable [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l rtp-ports -d 'UDP ports for plain RTP, which HTTP opens, four for a call: low-high or host:low-high [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l record -d 'always, or consent: nothing of a call is kept before META says "record":true [default: always]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l dtmf -d 'keep, or mask: the digits of key presses are left out everywhere, their times stay [default: keep]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l format -d 'lossless (received Opus is kept as it is) or compat (one coupled stereo encoding) [default: lossless]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l tail-ms -d 'silence after the last audio, in milliseconds [default: 2000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l keep-channels -d 'true: also publish each channel as a file, _left.opus and _right.opus [default: false]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l left-gain-db -d 'gain of the caller\'s channel in decibels; not 0 needs compat [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l right-gain-db -d 'gain of the AI\'s channel in decibels; not 0 needs compat [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l ai-offset-ms -d 'shifts the AI channel by so many milliseconds, later if positive [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l retention-secs -d 'a connection with no frame for so many seconds is stale: finalised and published [default: 1800]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l sweep-interval-secs -d 'seconds between two looks for stale connections [default: 600]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l linger-ms -d 'wait for stragglers after the last reference is released, in milliseconds [default: 500]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l resume-secs -d 'seconds that an unfinished connection waits for its gateway after a restart [default: 15]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l spool-fsync-ms -d 'milliseconds between two syncs of the spool to disk [default: 1000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l silence-alert-secs -d 'a channel that is not heard while the other one talks for so many seconds is reported; 0: none is [default: 60]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l max-connections -d 'beyond so many open connections new ones are refused [default: 20000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l max-duration-secs -d 'a recording longer than so many seconds is closed and goes on as a second part [default: 14400]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l min-free-bytes -d 'below so much free space on the spool\'s disk new connections are refused [default: 1073741824]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l shutdown-secs -d 'seconds of grace at SIGTERM: what is not published by then is published by the next start [default: 30]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l on-stop -d 'what becomes of open connections at SIGTERM: resume (the next start goes on with them, one recording each) or finish (they are finalised and published now) [default: resume]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l log -d 'what is logged: a level, or a filter such as info,sidetape::io=debug [default: info]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -l log-format -d 'text or json [default: text]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand serve" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_using_subcommand demo" -l output -d 'Where the recording goes' -r -F
complete -c sidetape -n "__fish_sidetape_using_subcommand demo" -l realtime -d 'Let the call take as long as it took, instead of sending it as fast as it can be recorded'
complete -c sidetape -n "__fish_sidetape_using_subcommand demo" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l to -d 'Where the daemon listens: udp:HOST:PORT, unix-dgram:PATH or unix-stream:PATH [default: what AUDIO_UDP_LISTEN, AUDIO_UNIX_STREAM or AUDIO_UNIX_DGRAM say, as for the daemon]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l id -d 'The connection id [default: the first file\'s name and the time]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l conversation-id -d 'The conversation id, which names the recording' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l rtpmap -d 'What a payload type means, on both channels or on one, such as 99=L16/8000/2 or ai:96=opus/48000/2' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l caller-ssrc -d 'The caller\'s stream, decimal or 0x and hexadecimal; several for a side that changed it' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l ai-ssrc -d 'The AI\'s stream, likewise' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l realtime -d 'Send as fast as the call was, not as fast as the daemon reads'
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -l no-end -d 'Leave the connection open'
complete -c sidetape -n "__fish_sidetape_using_subcommand replay" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l cache-enabled -d 'false: frames are accepted and dropped, nothing is kept [default: true]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l storage-type -d 'where recordings are published: local, gcs, s3 or azure [default: local]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l storage-path -d 'directory, or bucket or container with an optional /prefix [default: ./recordings]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l backup-storage-type -d 'where recordings go while the first storage fails: local, gcs, s3 or azure [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l backup-storage-path -d 'its directory, or bucket or container with an optional /prefix [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l backup-after-secs -d 'seconds for which the first storage must have failed until the backup is used [default: 300]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l object-key -d 'name of a recording: {id} (conversation id, else connection id), {connection_id}, {conversation_id}, {tenant}, and {yyyy} {mm} {dd} {hh} of the start in UTC [default: conversation_{id}_merged.opus]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l spool-dir -d 'where what was received is kept until it is published [default: ./spool]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l udp-listen -d 'UDP address for frames; empty: no UDP [default: 127.0.0.1:5055]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l allow-remote -d 'true: addresses that are not loopback may be listened on; see tap-key and http-token for who may use them [default: false]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l tap-key -d 'shared secret of at least 16 bytes: frames over UDP must be signed with it; better set by the variable, flags are visible to other users [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l unix-dgram -d 'Unix datagram socket for frames [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l unix-stream -d 'Unix stream socket for frames, each behind its length as u16 [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l unix-allow-uids -d 'user ids, separated by commas, whose processes alone may connect to Unix stream sockets [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l http-listen -d 'health, metrics, control and stretches of live calls over HTTP: host:port or unix:/path [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l http-token -d 'secret of at least 16 characters that HTTP clients must show as a bearer token, except for health; better set by the variable [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l rtp-ports -d 'UDP ports for plain RTP, which HTTP opens, four for a call: low-high or host:low-high [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l record -d 'always, or consent: nothing of a call is kept before META says "record":true [default: always]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l dtmf -d 'keep, or mask: the digits of key presses are left out everywhere, their times stay [default: keep]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l format -d 'lossless (received Opus is kept as it is) or compat (one coupled stereo encoding) [default: lossless]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l tail-ms -d 'silence after the last audio, in milliseconds [default: 2000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l keep-channels -d 'true: also publish each channel as a file, _left.opus and _right.opus [default: false]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l left-gain-db -d 'gain of the caller\'s channel in decibels; not 0 needs compat [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l right-gain-db -d 'gain of the AI\'s channel in decibels; not 0 needs compat [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l ai-offset-ms -d 'shifts the AI channel by so many milliseconds, later if positive [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l retention-secs -d 'a connection with no frame for so many seconds is stale: finalised and published [default: 1800]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l sweep-interval-secs -d 'seconds between two looks for stale connections [default: 600]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l linger-ms -d 'wait for stragglers after the last reference is released, in milliseconds [default: 500]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l resume-secs -d 'seconds that an unfinished connection waits for its gateway after a restart [default: 15]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l spool-fsync-ms -d 'milliseconds between two syncs of the spool to disk [default: 1000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l silence-alert-secs -d 'a channel that is not heard while the other one talks for so many seconds is reported; 0: none is [default: 60]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l max-connections -d 'beyond so many open connections new ones are refused [default: 20000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l max-duration-secs -d 'a recording longer than so many seconds is closed and goes on as a second part [default: 14400]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l min-free-bytes -d 'below so much free space on the spool\'s disk new connections are refused [default: 1073741824]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l shutdown-secs -d 'seconds of grace at SIGTERM: what is not published by then is published by the next start [default: 30]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l on-stop -d 'what becomes of open connections at SIGTERM: resume (the next start goes on with them, one recording each) or finish (they are finalised and published now) [default: resume]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l log -d 'what is logged: a level, or a filter such as info,sidetape::io=debug [default: info]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -l log-format -d 'text or json [default: text]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand recover" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_using_subcommand inspect" -l svg -d 'Where the picture goes; without it, beside the file' -r -F
complete -c sidetape -n "__fish_sidetape_using_subcommand inspect" -l no-picture -d 'Words only'
complete -c sidetape -n "__fish_sidetape_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l to -d 'Where the daemon listens: udp:HOST:PORT, unix-dgram:PATH or unix-stream:PATH [default: what AUDIO_UDP_LISTEN, AUDIO_UNIX_STREAM or AUDIO_UNIX_DGRAM say, as for the daemon]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l calls -d 'How many calls there are at once' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l seconds -d 'How long each call is, in seconds' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l codec -d 'What the packets hold' -r -f -a "opus\t'Opus, 60 bytes a packet: 24 kb/s'
pcmu\t'G.711 mu-law, 160 bytes a packet'
l16\t'16-bit samples at 16 kHz, 640 bytes a packet'"
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l loss -d 'Packets left out, in percent' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l jitter -d 'Packets seem to arrive up to so many milliseconds late' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l check -d 'The directory of the daemon\'s recordings, to check them there' -r -F
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -l flat-out -d 'Send as fast as the daemon reads, not in real time'
complete -c sidetape -n "__fish_sidetape_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l cache-enabled -d 'false: frames are accepted and dropped, nothing is kept [default: true]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l storage-type -d 'where recordings are published: local, gcs, s3 or azure [default: local]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l storage-path -d 'directory, or bucket or container with an optional /prefix [default: ./recordings]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l backup-storage-type -d 'where recordings go while the first storage fails: local, gcs, s3 or azure [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l backup-storage-path -d 'its directory, or bucket or container with an optional /prefix [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l backup-after-secs -d 'seconds for which the first storage must have failed until the backup is used [default: 300]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l object-key -d 'name of a recording: {id} (conversation id, else connection id), {connection_id}, {conversation_id}, {tenant}, and {yyyy} {mm} {dd} {hh} of the start in UTC [default: conversation_{id}_merged.opus]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l spool-dir -d 'where what was received is kept until it is published [default: ./spool]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l udp-listen -d 'UDP address for frames; empty: no UDP [default: 127.0.0.1:5055]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l allow-remote -d 'true: addresses that are not loopback may be listened on; see tap-key and http-token for who may use them [default: false]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l tap-key -d 'shared secret of at least 16 bytes: frames over UDP must be signed with it; better set by the variable, flags are visible to other users [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l unix-dgram -d 'Unix datagram socket for frames [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l unix-stream -d 'Unix stream socket for frames, each behind its length as u16 [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l unix-allow-uids -d 'user ids, separated by commas, whose processes alone may connect to Unix stream sockets [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l http-listen -d 'health, metrics, control and stretches of live calls over HTTP: host:port or unix:/path [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l http-token -d 'secret of at least 16 characters that HTTP clients must show as a bearer token, except for health; better set by the variable [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l rtp-ports -d 'UDP ports for plain RTP, which HTTP opens, four for a call: low-high or host:low-high [default: unset]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l record -d 'always, or consent: nothing of a call is kept before META says "record":true [default: always]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l dtmf -d 'keep, or mask: the digits of key presses are left out everywhere, their times stay [default: keep]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l format -d 'lossless (received Opus is kept as it is) or compat (one coupled stereo encoding) [default: lossless]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l tail-ms -d 'silence after the last audio, in milliseconds [default: 2000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l keep-channels -d 'true: also publish each channel as a file, _left.opus and _right.opus [default: false]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l left-gain-db -d 'gain of the caller\'s channel in decibels; not 0 needs compat [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l right-gain-db -d 'gain of the AI\'s channel in decibels; not 0 needs compat [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l ai-offset-ms -d 'shifts the AI channel by so many milliseconds, later if positive [default: 0]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l retention-secs -d 'a connection with no frame for so many seconds is stale: finalised and published [default: 1800]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l sweep-interval-secs -d 'seconds between two looks for stale connections [default: 600]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l linger-ms -d 'wait for stragglers after the last reference is released, in milliseconds [default: 500]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l resume-secs -d 'seconds that an unfinished connection waits for its gateway after a restart [default: 15]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l spool-fsync-ms -d 'milliseconds between two syncs of the spool to disk [default: 1000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l silence-alert-secs -d 'a channel that is not heard while the other one talks for so many seconds is reported; 0: none is [default: 60]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l max-connections -d 'beyond so many open connections new ones are refused [default: 20000]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l max-duration-secs -d 'a recording longer than so many seconds is closed and goes on as a second part [default: 14400]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l min-free-bytes -d 'below so much free space on the spool\'s disk new connections are refused [default: 1073741824]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l shutdown-secs -d 'seconds of grace at SIGTERM: what is not published by then is published by the next start [default: 30]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l on-stop -d 'what becomes of open connections at SIGTERM: resume (the next start goes on with them, one recording each) or finish (they are finalised and published now) [default: resume]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l log -d 'what is logged: a level, or a filter such as info,sidetape::io=debug [default: info]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -l log-format -d 'text or json [default: text]' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand check" -s h -l help -d 'Print help'
complete -c sidetape -n "__fish_sidetape_using_subcommand ready" -l http-listen -d 'The daemon\'s HTTP address: host:port or unix:/path' -r
complete -c sidetape -n "__fish_sidetape_using_subcommand ready" -s h -l help -d 'Print help'
