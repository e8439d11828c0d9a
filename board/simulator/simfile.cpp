#include "simfile.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "errors.hpp"
#include "hash.hpp"
#include "log.hpp"

namespace rksim {
namespace {

constexpr char MAGIC[8] = {'R', 'K', 'G', 'S', 'I', 'M', '\r', '\n'};
constexpr uint64_t FIXED = 16;             // magic, version, header length
constexpr uint64_t MOST_HEADER = 8 << 20;  // far above any real one: a 27B model has 60 KB
constexpr long long MOST_SIDE = 1 << 30;   // rows * cols * 4 stays far inside 64 bits

uint32_t word_at(const uint8_t* p) {
  return uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
}

uint64_t element_size(const std::string& dtype) {
  if (dtype == "f32") return 4;
  if (dtype == "f16") return 2;
  if (dtype == "i8" || dtype == "u8") return 1;
  return 0;
}

}  // namespace

SimFile::SimFile(const std::string& path) {
  map(path);
  try {
    check_magic();
    read_header();
  } catch (...) {
    munmap(const_cast<uint8_t*>(base_), size_);
    throw;
  }
}

SimFile::~SimFile() { munmap(const_cast<uint8_t*>(base_), size_); }

void SimFile::map(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) RKSIM_REFUSE("failed to open '%s': '%s'", path.c_str(), std::strerror(errno));
  struct stat status{};
  const bool usable = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= off_t(FIXED);
  void* at = usable ? mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  close(fd);
  if (at == MAP_FAILED) RKSIM_REFUSE("invalid rkllm model!");
  base_ = static_cast<const uint8_t*>(at);
  size_ = uint64_t(status.st_size);
}

void SimFile::check_magic() const {
  if (std::memcmp(base_, MAGIC, sizeof MAGIC) != 0) RKSIM_REFUSE("invalid rkllm model!");
  if (word_at(base_ + 8) != 1) RKSIM_REFUSE("invalid version number");
}

void SimFile::read_header() {
  const uint64_t length = word_at(base_ + 12);
  if (length > MOST_HEADER || length > size_ - FIXED) RKSIM_REFUSE("failed to read header");
  data_start_ = FIXED + length;
  std::istringstream lines(std::string(reinterpret_cast<const char*>(base_ + FIXED), length));
  for (std::string line; std::getline(lines, line);) {
    const size_t blank = line.find(' ');
    if (blank == std::string::npos) RKSIM_REFUSE("failed to read key-value pairs");
    const std::string key = line.substr(0, blank);
    if (key == "tensor") read_tensor(line.substr(blank + 1));
    else if (!keys_.emplace(key, line.substr(blank + 1)).second) RKSIM_REFUSE("failed to read key-value pairs");
  }
}

void SimFile::read_tensor(const std::string& line) {
  std::istringstream words(line);
  std::string name, extra;
  Tensor t;
  words >> name >> t.dtype >> t.rows >> t.cols >> t.offset >> t.bytes;
  const uint64_t element = element_size(t.dtype);
  const bool shaped = words && !(words >> extra) && element != 0 && t.rows >= 1 && t.cols >= 1 &&
                      t.rows <= MOST_SIDE && t.cols <= MOST_SIDE &&
                      t.bytes == uint64_t(t.rows) * uint64_t(t.cols) * element;
  if (!shaped) RKSIM_REFUSE("failed to read tensor info");
  if (t.offset % 64 != 0 || t.offset < data_start_ || t.offset > size_ || t.bytes > size_ - t.offset)
    RKSIM_REFUSE("failed to read the tensor data");
  if (!tensors_.emplace(name, t).second) RKSIM_REFUSE("duplicated tensor name %s", name.c_str());
}

std::string SimFile::kind() const { return keys_.count("kind") ? keys_.at("kind") : "model"; }

uint64_t SimFile::hash() const { return hashed(base_, size_, HASH_START); }

uint64_t SimFile::fingerprint() const {
  uint64_t hash = hashed(base_, data_start_, HASH_START);
  for (const auto& [name, tensor] : tensors_) {
    const size_t sample = size_t(std::min<uint64_t>(tensor.bytes, 256));
    hash = hashed(base_ + tensor.offset, sample, hash);
    hash = hashed(base_ + tensor.offset + tensor.bytes - sample, sample, hash);
  }
  return hash;
}

const std::string& SimFile::text(const std::string& key) const {
  const auto found = keys_.find(key);
  if (found == keys_.end()) RKSIM_REFUSE("failed to read key-value pairs");
  return found->second;
}

int SimFile::integer(const std::string& key, int low, int high) const {
  const std::string& value = text(key);
  char* end = nullptr;
  const long long number = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end || number < low || number > high) RKSIM_REFUSE("failed to read key-value pairs");
  return int(number);
}

float SimFile::real(const std::string& key, float low) const {
  const std::string& value = text(key);
  std::istringstream words(value);
  words.imbue(std::locale::classic());  // the process may have set a locale with decimal commas
  float number = 0;
  std::string extra;
  if (!(words >> number) || words >> extra || !std::isfinite(number) || number < low)
    RKSIM_REFUSE("failed to read key-value pairs");
  return number;
}

const Tensor& SimFile::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) RKSIM_REFUSE("tensor %s not found", name.c_str());
  return found->second;
}

const void* SimFile::data(const std::string& name, const char* dtype, long long rows, long long cols) const {
  const Tensor& t = tensor(name);
  if (t.rows != rows || (cols >= 0 && t.cols != cols) || t.dtype != dtype)
    RKSIM_REFUSE("tensor %s has wrong shape, expected %s [%lld, %lld], got %s [%lld, %lld]", name.c_str(), dtype, rows,
                 cols < 0 ? t.cols : cols, t.dtype.c_str(), t.rows, t.cols);
  return base_ + t.offset;
}

}  // namespace rksim
