# The daemon and nothing to build it with. What it holds and how to run it: docs/deploy.md
#
#   docker build -t job-queue-worker .
#   docker build --secret id=pip,src=pip.conf -t job-queue-worker .     # with an index of your own; it leaves no trace
#
# Both stages stand on one base, pinned by its digest: a rebuild makes the same image, and patches of the base come with
# a change of this line. What the newest is: docker buildx imagetools inspect python:3.13-slim-bookworm
# This digest was never pulled by this project: how to check and replace it is in docs/deploy.md, Docker.
ARG BASE=python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/worker \
 && groupadd --gid 10001 worker \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin worker
WORKDIR /src
COPY requirements.lock deploy/build.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /build/bin/pip install --quiet --no-deps --only-binary :all: --require-hashes -r build.lock \
 && /build/bin/pip --python /opt/worker/bin/python install --quiet --no-compile \
      --no-deps --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE worker.toml ./
COPY sql sql
COPY worker worker
# Byte code is made here and trusted without a look at the sources, which nobody can change at run.
RUN /build/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && /build/bin/pip --python /opt/worker/bin/python install --quiet --no-compile --no-index --no-deps dist/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/worker/lib

# No RUN from here on: what a build mounts or downloads cannot get into the image.
FROM ${BASE}
LABEL org.opencontainers.image.title="job-queue-worker" org.opencontainers.image.licenses="MIT"
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/worker /opt/worker
ENV PATH="/opt/worker/bin:$PATH" PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# worker.toml and the modules of its Python jobs belong here, mounted or copied.
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
# No HEALTHCHECK: without [http] nothing listens, and Docker itself does nothing with "unhealthy". Platforms that act
# upon health ask /readyz by a probe of their own.
# No ENTRYPOINT either: whatever a platform puts in place of the command is a whole one, as `worker migrate` is.
CMD ["worker", "run"]
