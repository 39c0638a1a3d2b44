# The program in a container. `cargo xtask wheels` makes the wheel first; then
#   docker build -t simdino .
#   docker run --gpus all --ipc host -v "$PWD":/data -w /data simdino train photos/
FROM python:3.12-slim-trixie
COPY dist/simdino_cli-*.whl /tmp/
RUN pip install --no-cache-dir /tmp/simdino_cli-*.whl && rm /tmp/simdino_cli-*.whl
ENTRYPOINT ["simdino"]
