# Build: docker build -t runwright .            (EXTRAS=data adds pandas and pyarrow for the blocks)
# Run:   docker run --init -p 8000:8000 -e RUNWRIGHT_ADMIN_KEY -v "$PWD/my_project:/project" runwright
FROM python:3.13-slim AS build
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY runwright runwright
COPY alembic alembic
RUN python -m venv /opt/runwright \
 && /opt/runwright/bin/pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home runwright \
 && install -d -o runwright -g runwright /project /state
COPY --from=build /opt/runwright /opt/runwright
ENV PATH=/opt/runwright/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RUNWRIGHT_HOME=/state
USER runwright
VOLUME /state
EXPOSE 8000
# Ten seconds of silence, three times: the loop hangs or the process is gone.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
# Any bind that is not loopback needs RUNWRIGHT_ADMIN_KEY or RUNWRIGHT_ADMIN_KEY_FILE; without one it exits 78.
CMD ["runwright", "start", "/project", "--host", "0.0.0.0", "--port", "8000"]
