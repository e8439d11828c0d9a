// The container of model.sim: header lines and tensors, without knowing what they mean.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace rksim {

struct Tensor {
  std::string dtype;  // f16 f32 i8 u8
  long long rows = 0, cols = 0;
  uint64_t offset = 0, bytes = 0;
};

class SimFile {
 public:
  explicit SimFile(const std::string& path);  // throws Refused
  ~SimFile();
  SimFile(const SimFile&) = delete;

  std::string kind() const;  // the key `kind`; `model` without one
  const std::string& text(const std::string& key) const;
  int integer(const std::string& key, int low, int high) const;
  float real(const std::string& key, float low) const;
  bool has(const std::string& tensor) const { return tensors_.count(tensor) != 0; }

  // The data of a tensor of exactly this type and shape; cols < 0 takes any.
  const void* data(const std::string& name, const char* dtype, long long rows, long long cols) const;
  const Tensor& tensor(const std::string& name) const;
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

  uint64_t fingerprint() const;  // of the header and of the first and last bytes of every tensor
  uint64_t hash() const;         // of every byte

 private:
  void map(const std::string& path);
  void check_magic() const;
  void read_header();
  void read_tensor(const std::string& line);

  const uint8_t* base_ = nullptr;
  uint64_t size_ = 0;
  uint64_t data_start_ = 0;
  std::map<std::string, std::string> keys_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace rksim
