# syntax=docker/dockerfile:1
# Two images; docs/team.md has the commands.
#   docker build -t decodiff-serve .                  the served model alone: no data, no training
#   docker build --target train -t decodiff-train .   pipelines and retraining
#
# The tag pins the version of Python; `docker buildx imagetools inspect python:3.11.13-slim-bookworm`
# shows the digest that pins the image too: --build-arg PYTHON=python:…@sha256:…
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
ARG UV=0.13.9
# cpu, a build that uv knows, such as cu128 or auto, or empty: as the package index gives it
ARG TORCH=cpu
RUN pip install --no-cache-dir "uv==${UV}"
WORKDIR /project
COPY requirements.lock ./
RUN uv venv /venv

FROM build AS build-train
COPY pyproject.toml README.md LICENSE dvc.yaml .dvcignore .telemetry ./
RUN uv pip install --no-cache --python /venv ${TORCH:+--torch-backend "${TORCH}"} \
        --constraint requirements.lock --requirement pyproject.toml --extra team setuptools
COPY .dvc/config .dvc/
COPY conf ./conf
COPY src ./src
# Editable: a clone that is mounted at /project runs its own code.
RUN uv pip install --no-cache --python /venv --no-deps --no-build-isolation --editable .

FROM ${PYTHON} AS train
RUN apt-get update && \
    apt-get install --yes --no-install-recommends git openssh-client && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --create-home decodiff && \
    install --directory --owner 10001 /project /artifacts
COPY --from=build-train /venv /venv
COPY --from=build-train --chown=10001 /project /project
# Home and name hold for whoever owns a mounted clone, and has no entry in /etc/passwd.
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    LOGNAME=decodiff \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    DVC_NO_ANALYTICS=1 \
    HF_HUB_DISABLE_TELEMETRY=1
USER 10001
WORKDIR /project
CMD ["kedro", "run"]

FROM build AS build-serve
# The packages that every version names as its requirements (registry/logged_model.py) and what
# their server needs, in the versions that the lock holds.
RUN uv pip install --no-cache --python /venv ${TORCH:+--torch-backend "${TORCH}"} \
        --constraint requirements.lock \
        accelerate diffusers mlflow numpy pandas pillow prometheus-client pydantic safetensors scipy \
        torch setuptools tqdm pyyaml
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN uv pip install --no-cache --python /venv --no-deps --no-build-isolation .

FROM ${PYTHON} AS serve
RUN useradd --uid 10001 --create-home decodiff && \
    install --directory --owner 10001 /model /var/log/decodiff
COPY --from=build-serve /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=5001 \
    WORKERS=1 \
    MODEL_URI=/model \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_OFFLINE=1
USER 10001
WORKDIR /home/decodiff
EXPOSE 5001
VOLUME ["/var/log/decodiff"]
# Loading takes some ten seconds, on a busy machine a minute.
HEALTHCHECK --start-period=120s --interval=30s --timeout=5s \
    CMD ["python", "-m", "decodiff_pipeline.serving.server", "--check"]
# No shell: the process becomes the server, which SIGTERM ends after the requests it is answering.
ENTRYPOINT ["python", "-m", "decodiff_pipeline.serving.server"]
