_sidetape() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="sidetape"
                ;;
            sidetape,check)
                cmd="sidetape__subcmd__check"
                ;;
            sidetape,demo)
                cmd="sidetape__subcmd__demo"
                ;;
            sidetape,inspect)
                cmd="sidetape__subcmd__inspect"
                ;;
            sidetape,load)
                cmd="sidetape__subcmd__load"
                ;;
            sidetape,ready)
                cmd="sidetape__subcmd__ready"
                ;;
            sidetape,recover)
                cmd="sidetape__subcmd__recover"
                ;;
            sidetape,replay)
                cmd="sidetape__subcmd__replay"
                ;;
            sidetape,serve)
                cmd="sidetape__subcmd__serve"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        sidetape)
            opts="-h -V --help --version serve demo replay recover inspect load check ready"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__check)
            opts="-h --cache-enabled --storage-type --storage-path --backup-storage-type --backup-storage-path --backup-after-secs --object-key --spool-dir --udp-listen --allow-remote --tap-key --unix-dgram --unix-stream --unix-allow-uids --http-listen --http-token --rtp-ports --record --dtmf --format --tail-ms --keep-channels --left-gain-db --right-gain-db --ai-offset-ms --retention-secs --sweep-interval-secs --linger-ms --resume-secs --spool-fsync-ms --silence-alert-secs --max-connections --max-duration-secs --min-free-bytes --shutdown-secs --on-stop --log --log-format --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --cache-enabled)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --storage-type)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --storage-path)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-storage-type)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-storage-path)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-after-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --object-key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --spool-dir)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --udp-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --allow-remote)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tap-key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-dgram)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-stream)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-allow-uids)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-token)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --rtp-ports)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --record)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dtmf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --format)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tail-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --keep-channels)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --left-gain-db)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --right-gain-db)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ai-offset-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --retention-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sweep-interval-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --linger-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --resume-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --spool-fsync-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --silence-alert-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-connections)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-duration-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --min-free-bytes)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --shutdown-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --on-stop)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__demo)
            opts="-h --realtime --output --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --output)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__inspect)
            opts="-h --svg --no-picture --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --svg)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__load)
            opts="-h --to --calls --seconds --codec --loss --jitter --flat-out --check --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --to)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --calls)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --seconds)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --codec)
                    COMPREPLY=($(compgen -W "opus pcmu l16" -- "${cur}"))
                    return 0
                    ;;
                --loss)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --jitter)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --check)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__ready)
            opts="-h --http-listen --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --http-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__recover)
            opts="-h --cache-enabled --storage-type --storage-path --backup-storage-type --backup-storage-path --backup-after-secs --object-key --spool-dir --udp-listen --allow-remote --tap-key --unix-dgram --unix-stream --unix-allow-uids --http-listen --http-token --rtp-ports --record --dtmf --format --tail-ms --keep-channels --left-gain-db --right-gain-db --ai-offset-ms --retention-secs --sweep-interval-secs --linger-ms --resume-secs --spool-fsync-ms --silence-alert-secs --max-connections --max-duration-secs --min-free-bytes --shutdown-secs --on-stop --log --log-format --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --cache-enabled)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --storage-type)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --storage-path)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-storage-type)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-storage-path)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-after-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --object-key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --spool-dir)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --udp-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --allow-remote)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tap-key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-dgram)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-stream)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-allow-uids)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-token)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --rtp-ports)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --record)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dtmf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --format)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tail-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --keep-channels)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --left-gain-db)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --right-gain-db)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ai-offset-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --retention-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sweep-interval-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --linger-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --resume-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --spool-fsync-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --silence-alert-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-connections)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-duration-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --min-free-bytes)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --shutdown-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --on-stop)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__replay)
            opts="-h --to --id --conversation-id --rtpmap --realtime --no-end --caller-ssrc --ai-ssrc --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --to)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --id)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --conversation-id)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --rtpmap)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --caller-ssrc)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ai-ssrc)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        sidetape__subcmd__serve)
            opts="-h --cache-enabled --storage-type --storage-path --backup-storage-type --backup-storage-path --backup-after-secs --object-key --spool-dir --udp-listen --allow-remote --tap-key --unix-dgram --unix-stream --unix-allow-uids --http-listen --http-token --rtp-ports --record --dtmf --format --tail-ms --keep-channels --left-gain-db --right-gain-db --ai-offset-ms --retention-secs --sweep-interval-secs --linger-ms --resume-secs --spool-fsync-ms --silence-alert-secs --max-connections --max-duration-secs --min-free-bytes --shutdown-secs --on-stop --log --log-format --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --cache-enabled)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --storage-type)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --storage-path)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-storage-type)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-storage-path)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --backup-after-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --object-key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --spool-dir)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --udp-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --allow-remote)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tap-key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-dgram)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-stream)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-allow-uids)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-token)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --rtp-ports)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --record)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dtmf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --format)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tail-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --keep-channels)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --left-gain-db)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --right-gain-db)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ai-offset-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --retention-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sweep-interval-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --linger-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --resume-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --spool-fsync-ms)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --silence-alert-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-connections)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-duration-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --min-free-bytes)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --shutdown-secs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --on-stop)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _sidetape -o nosort -o bashdefault -o default sidetape
else
    complete -F _sidetape -o bashdefault -o default sidetape
fi
