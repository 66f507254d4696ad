# The daemon and nothing else, as a user without rights.
#
#   docker build -t sidetape .
#   docker run --rm -v tap:/run/sidetape -v spool:/spool -v recordings:/recordings \
#     -e AUDIO_UNIX_DGRAM=/run/sidetape/tap.sock sidetape
#
# UDP listens on the container's own loopback by default, where only a container that shares its network
# reaches it. The Unix sockets in /run/sidetape are for those that share the volume instead.

FROM rust:1-bookworm AS build
# libopus is built from source, with cmake.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Optional parts of the program, as `cargo build --features` takes them.
ARG FEATURES=""

COPY . .
# The caches keep the built dependencies for the next build on this machine (BuildKit, Docker 23 or later). Cargo
# judges by file times, and the sources may be older than a cached build of other sources: hence the touch.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    touch src/main.rs src/lib.rs \
    && cargo build --release --locked --features "$FEATURES" \
    && cp target/release/sidetape /usr/local/bin/sidetape

FROM debian:bookworm-slim
# The certificates are for the object stores.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 sidetape \
    && useradd --uid 10001 --gid sidetape --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sidetape \
    && install -d -o sidetape -g sidetape -m 0750 /spool /recordings /run/sidetape
COPY --from=build /usr/local/bin/sidetape /usr/local/bin/sidetape
COPY LICENSE-MIT LICENSE-APACHE fixtures/README.md /usr/share/doc/sidetape/

ENV AUDIO_SPOOL_DIR=/spool \
    AUDIO_STORAGE_PATH=/recordings
VOLUME ["/spool", "/recordings"]
USER 10001:10001
# Finishes the open calls, or leaves them in the spool for the next start. Give it longer than
# AUDIO_SHUTDOWN_SECS: `docker stop --time 45`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["sidetape"]
CMD ["serve"]
