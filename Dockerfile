# SeeWhy for processors, from this checkout, with the versions of requirements-dev.lock:
#   docker build --build-arg TORCH_INDEX=ADDRESS -t seewhy .
# ADDRESS is that of torch's wheels without CUDA, which pytorch.org names under "Compute Platform: CPU". See docs/serve.md.
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX
ARG EXTRAS=serve,fast,parquet,s3
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY requirements-dev.lock ./
RUN sed -nE 's/^([A-Za-z0-9._-]+==[^\\]*[^ \\]).*/\1/p' requirements-dev.lock > /versions \
    && python -m venv --without-pip /opt/seewhy \
    && grep -E '^(torch|torchvision)==' /versions > /torch \
    && pip --python /opt/seewhy/bin/python install --no-cache-dir --no-deps \
        --index-url "${TORCH_INDEX:?the address of the wheels of torch without CUDA}" --requirement /torch
COPY pyproject.toml setup.py README.md LICENSE ./
COPY src ./src
RUN pip --python /opt/seewhy/bin/python install --no-cache-dir --constraint /versions ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/seewhy /opt/seewhy
ENV PATH=/opt/seewhy/bin:$PATH HOME=/tmp SEEWHY_CACHE=/tmp/seewhy PYTHONUNBUFFERED=1
USER 65534:65534
WORKDIR /tmp
EXPOSE 8000
# The shell itself asks: no process of Python every ten seconds.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /healthz HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 2 _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["seewhy"]
CMD ["serve", "--host", "0.0.0.0"]
