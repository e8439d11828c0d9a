#include "board.hpp"

#include <algorithm>
#include <cstdio>
#include <locale>
#include <sstream>

#include "iommu.hpp"

namespace rksim {
namespace {

constexpr double GIB = 1 << 30, MIB = 1 << 20;
constexpr double MOST_UNITS = 1 << 20;  // a PiB
constexpr uint64_t SYSTEM_BYTES = 3ull << 28;  // that the system keeps where a profile does not say what is available

// A plain decimal number of `unit`s as bytes; the word none is no value.
auto bytes_of(double unit) {
  return [unit](const std::string& text, std::optional<uint64_t>& into) {
    if (text == "none") return true;
    double count = 0;
    std::istringstream words(text);
    words.imbue(std::locale::classic());  // the process may have set a locale with decimal commas
    if (text.find_first_not_of("0123456789.") != std::string::npos || !(words >> count) || !words.eof()) return false;
    into = uint64_t(std::min(count, MOST_UNITS) * unit);
    return count < MOST_UNITS;
  };
}

bool count_or_none(const std::string& text, int& into) {
  return text == "none" || (number<int>(text, into) && into >= 0);
}

bool sizes(const std::string& text, std::vector<uint64_t>& into) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    long long size = 0;
    if (!number<long long>(word, size) || size <= 0) return false;
    into.push_back(uint64_t(size));
  }
  return true;
}

void take_occupied(const Values& values, Board& board) {
  const std::string prefix = "npu.occupied.";
  for (const auto& [key, value] : values) {
    if (key.compare(0, prefix.size(), prefix) != 0) continue;
    int domain = -1;
    if (!number<int>(key.substr(prefix.size()), domain) || domain < 0 || domain >= DOMAINS)
      RKSIM_REFUSE("simulator profile: npu.occupied has no domain '%s'", key.substr(prefix.size()).c_str());
    take(values, key, board.occupied[domain], sizes);
  }
}

void take_memory(const Values& values, Board& board) {
  std::optional<uint64_t> ram, swap, cma;
  take(values, "memory.ram_gb", ram, bytes_of(GIB));
  if (ram) board.available = *ram > SYSTEM_BYTES ? *ram - SYSTEM_BYTES : 0;
  take(values, "memory.available_gb", board.available, bytes_of(GIB));
  take(values, "memory.swap_free_gb", swap, bytes_of(GIB));
  take(values, "memory.cma_mb", cma, bytes_of(MIB));
  board.swap_free = swap.value_or(board.swap_free);
  board.cma = cma.value_or(board.cma);
}

void take_driver(const Values& values, Board& board) {
  bool access = true;
  std::string node = "/dev/dri/renderD129";
  take(values, "npu.driver", board.driver, [](const std::string& text, std::string& into) {
    into = text;
    return text == "none" || version_number(text) >= 0;
  });
  take(values, "npu.node", node, word);
  take(values, "npu.access", access, flag);
  board.reachable = board.driver != "none" && node != "none" && access;
  board.size_aligned = version_number(board.driver) < version_number("0.9.8");
  take(values, "npu.iova_alignment", board.size_aligned, either("page", "size"));
}

}  // namespace

int version_number(const std::string& text) {
  int major = 0, minor = 0, patch = 0, two = 0, three = 0;
  const int count = std::sscanf(text.c_str(), "%3d.%3d%n.%3d%n", &major, &minor, &two, &patch, &three);
  const bool whole = count >= 2 && size_t(count == 3 ? three : two) == text.size();
  return whole && text.find_first_not_of("0123456789.") == std::string::npos
             ? major * 1000000 + minor * 1000 + patch
             : -1;
}

bool Board::multiplies() const { return driver == "none" || version_number(driver) >= version_number("0.9.0"); }

Board read_board(const Values& values) {
  Board board;
  for (const char* mapping : {"npu", "npu.occupied", "memory"})  // {a: b} would be passed over unseen
    if (values.count(mapping)) RKSIM_REFUSE("simulator profile: %s is not a block mapping", mapping);
  take_driver(values, board);
  take(values, "npu.iommu", board.iommu, flag);
  take(values, "npu.multi_domain", board.multi_domain, flag);
  take(values, "npu.fds", board.descriptors, count_or_none);
  take_occupied(values, board);
  take_memory(values, board);
  return board;
}

}  // namespace rksim
