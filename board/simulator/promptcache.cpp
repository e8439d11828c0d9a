#include "promptcache.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "errors.hpp"
#include "hash.hpp"
#include "log.hpp"

namespace rksim {
namespace {

constexpr char MAGIC[8] = {'R', 'K', 'G', 'P', 'K', 'V', '\r', '\n'};
constexpr uint64_t MOST_POSITIONS = 1 << 20;

// The file is this, the ids, the values. Little-endian, as every machine that this is built for.
struct Header {
  char magic[8];
  uint32_t version, positions;
  uint32_t layers, kv_heads, head_dim, computed;
  uint64_t model, adapter, checksum;
};
static_assert(sizeof(Header) == 56, "no padding");

struct Close {
  void operator()(FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<FILE, Close>;

uint64_t checksum_of(const PromptCache& cache) {
  const uint64_t ids = hashed(cache.keys.data(), cache.keys.size() * sizeof(int64_t), HASH_START);
  return hashed(cache.values.data(), cache.values.size() * sizeof(float), ids);
}

Header header_of(const PromptCache& cache, const Model& model) {
  const Config& c = model.config;
  Header h{};
  std::memcpy(h.magic, MAGIC, sizeof MAGIC);
  h.version = 1;
  h.positions = uint32_t(cache.keys.size());
  h.layers = uint32_t(c.layers);
  h.kv_heads = uint32_t(c.kv_heads);
  h.head_dim = uint32_t(c.head_dim);
  h.computed = !cache.values.empty();
  h.model = model.fingerprint();
  h.adapter = cache.adapter;
  h.checksum = checksum_of(cache);
  return h;
}

size_t values_of(const Header& h) {
  return h.computed ? size_t(2) * h.layers * h.kv_heads * h.head_dim * h.positions : 0;
}

template <typename T>
bool read_all(FILE* file, std::vector<T>& into, size_t count) {
  into.resize(count);
  return std::fread(into.data(), sizeof(T), count, file) == count;
}

template <typename T>
bool write_all(FILE* file, const std::vector<T>& from) {
  return std::fwrite(from.data(), sizeof(T), from.size(), file) == from.size();
}

bool write_file(int fd, const PromptCache& cache, const Header& header) {
  FILE* const file = fdopen(fd, "wb");
  if (!file) {
    close(fd);
    return false;
  }
  const bool written = std::fwrite(&header, sizeof header, 1, file) == 1 && write_all(file, cache.keys) &&
                       write_all(file, cache.values) && std::fflush(file) == 0 && fsync(fd) == 0;
  const int reason = errno;
  const bool closed = std::fclose(file) == 0;
  if (!written) errno = reason;
  return written && closed;
}

}  // namespace

// mkstemp's mode suits it: the file tells what was asked.
bool PromptCache::save(const std::string& path, const Model& model) const {
  std::string temporary = path + ".XXXXXX";
  const int fd = mkstemp(&temporary[0]);
  if (fd >= 0 && write_file(fd, *this, header_of(*this, model)) && std::rename(temporary.c_str(), path.c_str()) == 0)
    return true;
  error("failed to save prompt cache to %s: %s", path.c_str(), std::strerror(errno));
  if (fd >= 0) unlink(temporary.c_str());
  return false;
}

void PromptCache::load(const std::string& path, const Model& model, bool computed) {
  const File file(std::fopen(path.c_str(), "rbe"));
  struct stat status{};
  if (!file || fstat(fileno(file.get()), &status) != 0) RKSIM_REFUSE("prompt cache file '%s' does not exist", path.c_str());
  if (status.st_size == 0) RKSIM_REFUSE("prompt cache file '%s' is empty", path.c_str());
  const auto broken = [&]() { RKSIM_REFUSE("failed to load prompt cache from %s", path.c_str()); };
  Header h{};
  if (std::fread(&h, sizeof h, 1, file.get()) != 1 || std::memcmp(h.magic, MAGIC, sizeof MAGIC) != 0 ||
      h.version != 1 || h.positions == 0 || h.positions > MOST_POSITIONS)
    broken();
  const Config& c = model.config;
  if (h.model != model.fingerprint() || h.layers != uint32_t(c.layers) || h.kv_heads != uint32_t(c.kv_heads) ||
      h.head_dim != uint32_t(c.head_dim) || (h.computed != 0) != computed) {
    error("the prompt dose not match the current model[%s]", c.gemma2 ? "gemma2" : "gemma");
    broken();
  }
  const size_t bytes = sizeof h + h.positions * sizeof(int64_t) + values_of(h) * sizeof(float);
  if (uint64_t(status.st_size) != bytes || !read_all(file.get(), keys, h.positions) ||
      !read_all(file.get(), values, values_of(h)) || checksum_of(*this) != h.checksum)
    broken();
  adapter = h.adapter;
}

}  // namespace rksim
