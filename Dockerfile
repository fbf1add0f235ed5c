# syntax=docker/dockerfile:1
# The served model alone: no data, no training, no development tools. See docs/serving.md.
#
# The tag pins the version of Python; `docker buildx imagetools inspect python:3.11.13-slim-bookworm`
# shows the digest that pins the image too: --build-arg PYTHON=python:…@sha256:…
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
ARG UV=0.13.9
# cpu, or a build that uv knows, such as cu128 or auto
ARG TORCH=cpu
RUN pip install --no-cache-dir "uv==${UV}"
WORKDIR /build
COPY requirements.lock ./
# The packages that every version names as its requirements (registry/logged_model.py) and what
# their server needs, in the versions that the lock holds.
RUN uv venv /venv && \
    uv pip install --no-cache --python /venv --torch-backend "${TORCH}" \
        --constraint requirements.lock \
        accelerate diffusers mlflow numpy pandas pillow pydantic safetensors scipy torch \
        setuptools tqdm pyyaml
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN uv pip install --no-cache --python /venv --no-deps --no-build-isolation .

FROM ${PYTHON}
RUN useradd --uid 10001 --create-home decodiff && \
    install --directory --owner 10001 /model /var/log/decodiff
COPY --from=build /venv /venv
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
