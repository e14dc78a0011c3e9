"""One thread for tiny tensors: two are slower, and results must not depend on how many cores a machine has."""

import torch

torch.set_num_threads(1)
