# docker build -t avatar-service .                        the Avatar Service: chat, avatars and the WebRTC proxy, port 8001
# docker build --target gpuserver-cpu -t gpuserver .      the whole server, lips drawn on the CPU, port 9000
# docker build --target gpuserver-cuda -t gpuserver .     the same with MuseTalk; run it with --gpus all

FROM python:3.12.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# /data is the server's: a volume keeps it.
RUN groupadd --gid 10001 gpuserver && useradd --uid 10001 --gid gpuserver --create-home gpuserver && install -d -o gpuserver -g gpuserver /data
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY gpuserver ./gpuserver
# pyproject.toml bounds the versions.
# hadolint ignore=DL3013
RUN pip install '.[espeak]'
WORKDIR /data

FROM base AS gpuserver-cpu
ENV MANAGEMENT_API_HOST=0.0.0.0 AVATARS_DIR=/data/avatars VIDEO_DIRS=/data/videos
USER 10001:10001
VOLUME /data
EXPOSE 9000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('MANAGEMENT_API_PORT', '9000') + '/health', timeout=4)"]
CMD ["python", "-m", "gpuserver", "serve"]

FROM gpuserver-cpu AS gpuserver-cuda
ENV ENABLE_MUSETALK=true MUSETALK_BASE=/data/musetalk NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 0:0
WORKDIR /src
# hadolint ignore=DL3013
RUN pip install '.[musetalk]'
WORKDIR /data
USER 10001:10001

FROM base AS avatar-service
# Open on purpose, for a network that is closed to others: the log says so at every start. API_KEYS closes it.
ENV GATEWAY_HOST=0.0.0.0 ALLOW_INSECURE=1 PORT=8001
USER 10001:10001
EXPOSE 8001
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)"]
CMD ["python", "-m", "gpuserver", "gateway"]
