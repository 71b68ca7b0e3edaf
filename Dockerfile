# Images of Gantry, one target each: operator, broker, nameserver, cli.
#   docker build --target broker --tag gantry-broker:dev .
# Each is a Debian without a shell, with one program, which runs as a user without rights on a read-only root.
# scripts/images builds the last stages from programs that cargo built, on a base made from this machine's Debian.

ARG RUST=docker.io/library/rust:1.95-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST} AS build
RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends clang libclang-dev protobuf-compiler libprotobuf-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the image's layers: RocksDB is compiled once.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked \
      --package gantry --package gantry-broker --package gantry-nameserver --package gantry-operator \
    && mkdir /programs \
    && for program in gantry gantry-broker gantry-nameserver gantry-operator; do \
         strip --output-file="/programs/$program" "/target/release/$program" || exit 1; \
       done

FROM ${BASE} AS base
# `nonroot` of the base; Kubernetes checks the number.
USER 65532:65532

FROM base AS operator
COPY --from=build /programs/gantry-operator /usr/bin/gantry-operator
EXPOSE 8080
ENTRYPOINT ["/usr/bin/gantry-operator"]

FROM base AS broker
COPY --from=build /programs/gantry-broker /usr/bin/gantry-broker
EXPOSE 10911 10909 8081 8080
ENTRYPOINT ["/usr/bin/gantry-broker"]

FROM base AS nameserver
COPY --from=build /programs/gantry-nameserver /usr/bin/gantry-nameserver
EXPOSE 9876 8080
ENTRYPOINT ["/usr/bin/gantry-nameserver"]

FROM base AS cli
COPY --from=build /programs/gantry /usr/bin/gantry
ENTRYPOINT ["/usr/bin/gantry"]
