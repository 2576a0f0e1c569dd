"""One of two processes that train DPIG together; run by torchrun from test_train_dpig.py. Writes
the networks that each stage ends with to FOLDER/STAGE_R.safetensors."""

from __future__ import annotations


