# The image of k8s/: Shoal and what constraints.txt pins, for CPUs and NVIDIA GPUs (torch brings its CUDA).
# A smaller one for CPUs: --build-arg TORCH_INDEX=URL of torch's CPU builds.
FROM python:3.12-slim-bookworm AS build
ARG TORCH_INDEX=""
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY shoal shoal
COPY policies policies
COPY trainables trainables
COPY cluster cluster
COPY search search
RUN pip install --no-cache-dir --prefix=/install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    --constraint constraints.txt .

FROM python:3.12-slim-bookworm
COPY --from=build /install /usr/local
COPY examples /home/shoal/examples
RUN useradd --uid 1000 --create-home shoal
USER 1000:1000
WORKDIR /home/shoal
# Ray's own usage statistics stay off unless somebody wants them
ENV RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1
CMD ["shoal", "--help"]
