// What a round allocates: state on the device, and the ring that device and host share.
#pragma once

#include <memory>

#include "kangaroo/round.h"
#include "round_kernels.h"

namespace kangaroo {

class RoundMemory {
 public:
  // All sequences done, nothing published; a ring of `ahead` slots and one that is being read.
  kangaroo_status allocate(const kangaroo_round_config& config);

  const RoundState& state() const { return state_; }
  const RoundRing& ring_on_device() const { return device_ring_; }
  // Fills `result` if the device has published this round.
  bool read(uint64_t round, kangaroo_round_result* result) const;

 private:
  struct DeviceFree {
    void operator()(void* data) const { cudaFree(data); }
  };
  struct HostFree {
    void operator()(void* data) const { cudaFreeHost(data); }
  };

  kangaroo_status allocate_state(int64_t batch);

  std::unique_ptr<void, DeviceFree> device_;
  std::unique_ptr<void, HostFree> host_;
  RoundState state_ = {};
  RoundRing device_ring_ = {};
  RoundRing host_ring_ = {};
};

}  // namespace kangaroo
