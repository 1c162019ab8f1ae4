# Build: docker build -t runwright .            (EXTRAS=data adds pandas and pyarrow for the blocks)
# Run:   docker run --init -p 8000:8000 -e RUNWRIGHT_ADMIN_KEY -v "$PWD/my_project:/project" -v runwright:/state runwright
# Three replicas with Postgres: deploy/compose.yaml
FROM python:3.13-slim AS build
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY runwright runwright
COPY alembic alembic
RUN python -m venv /opt/runwright \
 && /opt/runwright/bin/pip install --no-cache-dir --compile ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home runwright \
 && install -d -o runwright -g runwright /project /state
COPY --from=build /opt/runwright /opt/runwright
# Nothing is written but /state and /tmp (and what the blocks write): the root file system may be read-only.
ENV PATH=/opt/runwright/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RUNWRIGHT_HOST=0.0.0.0 \
    RUNWRIGHT_PORT=8000 \
    RUNWRIGHT_HOME=/state
USER runwright
WORKDIR /project
VOLUME /state
EXPOSE 8000
# Ten seconds of silence, three times: the loop hangs or the process is gone.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"RUNWRIGHT_PORT\"]}/livez', timeout=4)"]
# The process handles SIGTERM itself (also as PID 1): give it more than RUNWRIGHT_DRAIN_S before SIGKILL.
STOPSIGNAL SIGTERM
# Any bind that is not loopback needs RUNWRIGHT_ADMIN_KEY or RUNWRIGHT_ADMIN_KEY_FILE; without one it exits 78.
CMD ["runwright", "start", "/project"]
