# The daemon and what it is linked to, as a user without rights: no shell, no package manager, nothing to write to but
# the two volumes and the sockets.
#
#   docker build -t sidetape .
#   docker run --rm --read-only --cap-drop ALL -v tap:/run/sidetape -v spool:/spool -v recordings:/recordings \
#     -e AUDIO_UNIX_STREAM=/run/sidetape/tap-stream.sock sidetape
#
# UDP listens on the container's own loopback by default, where only a container that shares its network
# reaches it. The Unix sockets in /run/sidetape are for those that share the volume instead.

FROM rust:1-bookworm AS build
# libopus is built from source, with cmake.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Words more for cargo, such as "--no-default-features --features s3".
ARG CARGO_FLAGS=""

COPY . .
# The caches keep the built dependencies for the next build on this machine (BuildKit, Docker 23 or later). Cargo
# judges by file times, and the sources may be older than a cached build of other sources: hence the touch.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    touch src/main.rs src/lib.rs \
    && cargo build --release --locked $CARGO_FLAGS \
    && strip --strip-unneeded -o /usr/local/bin/sidetape target/release/sidetape

# What the image holds: the program, the libraries that it is linked to, the certificates for the object stores, the
# user, the licences.
RUN mkdir -p /image/etc/ssl/certs /image/usr/share/doc/sidetape \
    && for file in /usr/local/bin/sidetape $(ldd /usr/local/bin/sidetape | grep -o '/lib[^ ]*'); do \
        install -D -m 0755 "$file" "/image$file" || exit 1; \
    done \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp LICENSE-MIT LICENSE-APACHE fixtures/README.md /image/usr/share/doc/sidetape/ \
    && install -D /usr/share/doc/libc6/copyright /image/usr/share/doc/libc6/copyright \
    && install -D /usr/share/doc/libgcc-s1/copyright /image/usr/share/doc/libgcc-s1/copyright \
    && echo 'sidetape:x:10001:10001::/nonexistent:/nonexistent' >/image/etc/passwd \
    && echo 'sidetape:x:10001:' >/image/etc/group \
    && install -d -m 0750 /volumes/spool /volumes/recordings /volumes/run/sidetape \
    && /usr/local/bin/sidetape --version

FROM scratch
COPY --from=build /image/ /
COPY --from=build --chown=10001:10001 /volumes/ /

ENV AUDIO_SPOOL_DIR=/spool \
    AUDIO_STORAGE_PATH=/recordings
VOLUME ["/spool", "/recordings"]
USER 10001:10001
# Leaves open calls in the spool for the next start, so keep that volume, or finishes them with AUDIO_ON_STOP=finish. Give
# it longer than AUDIO_SHUTDOWN_SECS: `docker stop --time 45`. `docker kill --signal USR1` drains it.
STOPSIGNAL SIGTERM
# A health check is `sidetape ready`, where AUDIO_HTTP_LISTEN is set: deploy/compose.yaml has one.
ENTRYPOINT ["/usr/local/bin/sidetape"]
CMD ["serve"]
