// The ops of HandNet on a GPU; on a CPU it is a class (hand_net_bind.cpp).
#include "hand_net/hand_net_op.h"

STABLE_TORCH_LIBRARY_FRAGMENT(dgpose, m) { dgpose::define(m); }
