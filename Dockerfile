# One image, any service: docker run driftline services.predictor
# syntax=docker/dockerfile:1
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/driftline && /opt/driftline/bin/pip install --no-cache-dir uv==0.13.8
COPY requirements.txt ./
RUN /opt/driftline/bin/uv pip install --python /opt/driftline/bin/python --compile-bytecode --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY libs libs
COPY services services
COPY schemas schemas
RUN /opt/driftline/bin/uv pip install --python /opt/driftline/bin/python --compile-bytecode --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/driftline driftline
COPY --from=build /opt/driftline /opt/driftline
COPY examples /opt/examples
ENV PATH=/opt/driftline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DRIFTLINE_HOST=0.0.0.0 \
    DRIFTLINE_PORT=8080 \
    DRIFTLINE_LOG_FORMAT=json \
    DRIFTLINE_PROJECT=/opt/examples/flights \
    DRIFTLINE_MODELS=/var/lib/driftline/models \
    DRIFTLINE_STATE=/var/lib/driftline/state
USER driftline
WORKDIR /var/lib/driftline
EXPOSE 8080
ENTRYPOINT ["python", "-P", "-m"]
CMD ["services.ingest"]
