# The image of stacktoken: the program, the libraries it asks for, and nothing else.
# What is in it, and how to build the same without an engine: docs/image.md

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin stacktoken

FROM build AS rootfs
RUN image/rootfs target/release/stacktoken /rootfs

FROM scratch
LABEL org.opencontainers.image.title="stacktoken" \
      org.opencontainers.image.description="Management tokens for the stacks of a headless CMS" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=rootfs /rootfs/ /
# A number, as `runAsNonRoot` cannot tell for a name.
USER 65532:65532
WORKDIR /data
EXPOSE 50051 9464
ENTRYPOINT ["/usr/bin/stacktoken"]
CMD ["serve"]
