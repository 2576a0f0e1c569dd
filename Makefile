# Every target does its own set-up: python3, a C++ compiler and make are all it needs.
#
#   make demo    hand joints from a rendered depth sequence: frames/s, error, a contact sheet
#   make test    all tests            make lint    ruff, mypy, clang-format
#   make bench   kernels beside their peers and limits; writes benchmarks/results
#   make cuda-check   compile the CUDA kernels (needs nvcc, no GPU) and run them emulated
#   make build   rebuild the compiled core after a change in csrc/

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test bench lint format build cpp-test cuda-check wheel-check clean

demo: $(VENV)/.built
	$(BIN)/dgpose demo

test: $(VENV)/.built
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

bench: $(VENV)/.built $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*' 'tests/cpp/*' 'examples/cpp/*' | grep -E '\.(h|c|cpp|inl|cuh?)$$')

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*' 'tests/cpp/*' 'examples/cpp/*' | grep -E '\.(h|c|cpp|inl|cuh?)$$')

build: $(VENV)/.built

$(VENV)/.built: $(VENV)/.installed $(shell find csrc -type f)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

# One folder for the two targets below: they share the emulated CUDA kernels.
SANITIZE = -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" -DDGPOSE_BUILD_MODULE=OFF -DDGPOSE_SANITIZE=ON

# C++ tests under ASan and UBSan (Debian: libgtest-dev, nlohmann-json3-dev). Not -O2: GCC spends minutes on one
# file of sanitized SIMD templates there, and seconds at -O1.
cpp-test: $(VENV)/.built
	cmake $(SANITIZE) -DDGPOSE_BUILD_TESTS=ON
	cmake --build build/sanitize
	ctest --test-dir build/sanitize --output-on-failure

# The CUDA half without a GPU: cubins within their budget, the library with its bindings against this
# torch, and the kernels run on the CPU under ASan and UBSan, against the reference.
SANITIZER_LIBRARIES = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libubsan.so)
cuda-check: $(VENV)/.built
	$(BIN)/python tools/compile_cuda.py
	cmake -S . -B build/cuda -G Ninja -DDGPOSE_BUILD_MODULE=OFF -DDGPOSE_BUILD_CUDA=ON \
	  -DDGPOSE_CUDA_ARCHITECTURES=90-virtual -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/cuda --target _C_cuda
	cmake $(SANITIZE) -DDGPOSE_BUILD_CUDA_EMULATION=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/sanitize --target dgpose_cuda_emulation
	LD_PRELOAD="$(SANITIZER_LIBRARIES)" ASAN_OPTIONS=detect_leaks=0 \
	  DGPOSE_CUDA_EMULATION=$(abspath build/sanitize/libdgpose_cuda_emulation.so) \
	  $(BIN)/python -m pytest -n auto --maxprocesses 4 -p no:cacheprovider tests/test_cuda.py tests/test_hand_net_cuda.py

# The wheel, built from the source distribution as a user's pip would, and run where nothing but torch and
# numpy is installed.
wheel-check: $(VENV)/.installed
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python setup.py -q sdist --dist-dir build/wheel
	$(BIN)/pip wheel -q --no-build-isolation --no-deps -w build/wheel build/wheel/*.tar.gz
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/pip install -q -c constraints.txt torch numpy
	build/wheel/venv/bin/pip install -q --no-deps build/wheel/*.whl
	cd build/wheel && venv/bin/python ../../tests/wheel_smoke.py

# The build tools come first: the package is installed without build isolation, against this torch.
$(VENV)/.installed: pyproject.toml constraints.txt setup.py CMakeLists.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch numpy setuptools wheel cmake ninja pybind11
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[systems,onnx,dev]'
	$(BIN)/pip install -q --no-deps mmpose==1.3.2  # an oracle: its NumPy codecs (tests/mmpose_oracle.py)
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]' --no-build-isolation
	$(BIN)/pip install -q --no-deps 'PyOpenGL>=3.1.7'  # pyrender pins one too old for OSMesa
	touch $@

clean:
	rm -rf build dgpose_ext/*.so $(VENV)/.installed* $(VENV)/.built
