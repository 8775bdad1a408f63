#!/usr/bin/env bash
# Installs a CUDA compiler from PyPI into a folder, for building and checking without a GPU.
#
#   kernels/cuda/toolkit.sh [FOLDER]    default: target/cuda
#
# Then `. FOLDER/env` sets what the builds of candle-kernels, cudarc and darkroom-kernels look for.
# 130 MB are downloaded. Linking needs cuBLAS, cuRAND and NVRTC as well: LIBRARIES=yes installs them.
# PYTHON names a Python with pip, if python3 is none.
set -euo pipefail

folder=${1:-target/cuda}
python=${PYTHON:-python3}

# One release: cudarc knows it, and it still compiles for every GPU since compute capability 7.5.
packages=(
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
)
if [ "${LIBRARIES:-no}" = yes ]; then
    packages+=(nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35 nvidia-cuda-nvrtc==13.0.88)
fi

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
home=$folder/nvidia/cu13
if [ "${packages[*]}" != "$(cat "$folder/installed" 2> /dev/null)" ]; then
    rm -rf "$folder/nvidia"
    "$python" -m pip install -q --disable-pip-version-check --root-user-action ignore --no-deps \
        --no-compile --upgrade --target "$folder" "${packages[@]}"
    # The wheels have no names without a version, which linkers want, and one of two usual folders.
    ln -sfn lib "$home/lib64"
    for library in "$home"/lib/*.so.*; do
        ln -sf "$(basename "$library")" "${library%%.so.*}.so"
    done
    echo "${packages[*]}" > "$folder/installed"
fi

# A machine without a GPU cannot be asked which one it is.
cat > "$folder/env" << END
export CUDA_HOME='$home'
export PATH='$home/bin':"\$PATH"
export CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-80}"
END
"$home/bin/nvcc" --version | grep release
