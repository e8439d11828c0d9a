// What a live handle holds of the NPU: descriptors, an IOMMU domain, and memory.
#pragma once
#include <cstdint>
#include <vector>

#include "holding.hpp"
#include "profile.hpp"
#include "release.hpp"

namespace rksim {

class Device {
 public:
  // Throws Refused with the vendor's lines printed when something cannot be had. Where host memory runs out the
  // process is killed.
  Device(const Profile& profile, const Layout& layout, const Need& need, int domain);
  ~Device() { release(); }
  Device(const Device&) = delete;
  void release();

 private:
  void claim_domain(const Profile& profile, int domain);
  void open_descriptors(const Profile& profile);
  void take_memory(const Profile& profile, const Need& need, int domain);

  std::vector<int> descriptors_;
  Holding memory_;
};

// `failed to allocate handle`, `failed to malloc npu memory` and what follows them at init.
void say_no_memory(int number, uint64_t bytes);
void say_init_failed(const Layout& layout);
void say_no_device(const Layout& layout);

}  // namespace rksim
