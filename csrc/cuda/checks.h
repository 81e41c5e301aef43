// What the ops around a product refuse, each in the same words.
#pragma once

#include <string>

#include "check.h"
#include "device.cuh"

namespace kangaroo {

// Rows that a launch has blocks for, and that are numbered in 31 bits, as their columns are.
inline void check_rows(Check& check, const std::string& name, const kangaroo_states& x) {
  constexpr int64_t kMost = 1 << 28;
  check.gpu_dtype(name.c_str(), x.dtype);
  check.states(name.c_str(), x);
  check.within((name + ".width").c_str(), x.width, 0, kMost);
  check.within((name + ".batch").c_str(), x.batch, 0, kMost);
  check.within((name + ".nodes").c_str(), x.nodes, 0, kMost);
  if (check.ok()) check.within((name + ": batch times nodes").c_str(), x.batch * x.nodes, 0, kMost);
}

inline kangaroo_status check_workspace(const char* op, const void* workspace, int64_t bytes) {
  if (bytes == 0 || (workspace && aligned_to_16(workspace))) return KANGAROO_OK;
  return invalid("%s: workspace: expected an address aligned to 16 bytes, got %p", op, workspace);
}

}  // namespace kangaroo
