#include "tokenizer.hpp"

#include <algorithm>
#include <cstdlib>
#include <queue>

namespace rksim {
namespace {

constexpr std::string_view SPACE = "\xe2\x96\x81";
constexpr std::string_view REPLACEMENT = "\xef\xbf\xbd";

// Length of the well-formed character at the front of text; 0 when there is none.
size_t character(std::string_view text) {
  static constexpr uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
  const auto byte = [&](size_t i) { return uint32_t((unsigned char)text[i]); };
  const uint32_t first = byte(0);
  const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
  if (length < 2 || length > text.size()) return length == 1 ? 1 : 0;
  uint32_t code = first & (0x7f >> length);
  for (size_t i = 1; i < length; i++) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  return code < LEAST[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : length;
}

std::string normalised(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  while (!text.empty()) {
    const size_t length = character(text);
    if (length == 0) out += REPLACEMENT;
    else if (text[0] == ' ') out += SPACE;
    else out += text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

// `<0x0A>` is 10; -1 for a text of another form.
int byte_of(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const std::string digits(text.substr(3, 2));
  char* end = nullptr;
  const long value = std::strtol(digits.c_str(), &end, 16);
  return *end ? -1 : int(value);
}

}  // namespace

struct Tokenizer::Work {
  std::vector<Symbol> symbols;
  std::priority_queue<Pair> pairs;
  Halves halves;  // what an unused piece was made of: it is taken apart again
};

// The best score first, the leftmost pair among equals.
bool Tokenizer::Pair::operator<(const Pair& other) const {
  return score < other.score || (score == other.score && left > other.left);
}

Tokenizer::Tokenizer(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  bytes_.fill(-1);
  pieces_.reserve(size_t(vocabulary.size()));
  for (int id = 0; id < vocabulary.size(); id++) {
    const std::string_view text = vocabulary.text(id);
    const Kind kind = vocabulary.kind(id);
    const int byte = kind == Kind::byte ? byte_of(text) : -1;
    if (byte >= 0) bytes_[size_t(byte)] = id;
    if (kind == Kind::unknown) unknown_ = id;
    if (text.empty()) continue;
    if (kind == Kind::normal || kind == Kind::user_defined || kind == Kind::unused) pieces_.emplace(text, id);
    if (kind == Kind::user_defined || kind == Kind::control) whole_.emplace(text, id);
  }
  for (const auto& piece : whole_) lengths_[(unsigned char)piece.first[0]].push_back(piece.first.size());
  for (auto& lengths : lengths_) {
    std::sort(lengths.rbegin(), lengths.rend());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

// The longest piece that is matched first at the front of text, or -1.
int Tokenizer::match(std::string_view text, size_t& length) const {
  for (const size_t size : lengths_[(unsigned char)text[0]]) {
    const auto found = size <= text.size() ? whole_.find(text.substr(0, size)) : whole_.end();
    if (found == whole_.end()) continue;
    length = size;
    return found->second;
  }
  length = character(text);
  return -1;
}

std::vector<Tokenizer::Symbol> Tokenizer::split(std::string_view text) const {
  std::vector<Symbol> symbols;
  while (!text.empty()) {
    size_t length = 0;
    const int whole = match(text, length);
    const int index = int(symbols.size());
    symbols.push_back({index - 1, index + 1, text.substr(0, length), whole});
    text.remove_prefix(length);
  }
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

void Tokenizer::offer(Work& work, int left, int right) const {
  if (left < 0 || right < 0) return;
  const Symbol &a = work.symbols[size_t(left)], &b = work.symbols[size_t(right)];
  if (a.whole >= 0 || b.whole >= 0) return;
  const std::string_view both(a.piece.data(), a.piece.size() + b.piece.size());
  const auto found = pieces_.find(both);
  if (found == pieces_.end()) return;
  work.pairs.push({vocabulary_.score(found->second), left, right, both.size()});
  if (vocabulary_.kind(found->second) == Kind::unused) work.halves[both] = {a.piece, b.piece};
}

void Tokenizer::merge(Work& work) const {
  auto& symbols = work.symbols;
  for (int i = 1; i < int(symbols.size()); i++) offer(work, i - 1, i);
  while (!work.pairs.empty()) {
    const Pair pair = work.pairs.top();
    work.pairs.pop();
    Symbol &left = symbols[size_t(pair.left)], &right = symbols[size_t(pair.right)];
    if (left.piece.empty() || right.piece.empty() || left.piece.size() + right.piece.size() != pair.size) continue;
    left.piece = std::string_view(left.piece.data(), pair.size);
    left.next = right.next;
    if (right.next >= 0) symbols[size_t(right.next)].previous = pair.left;
    right.piece = std::string_view();
    offer(work, left.previous, pair.left);
    offer(work, pair.left, left.next);
  }
}

void Tokenizer::append_bytes(std::string_view piece, std::vector<int>& ids) const {
  for (const char c : piece) {
    const int id = bytes_[(unsigned char)c];
    if (id >= 0 || unknown_ >= 0) ids.push_back(id >= 0 ? id : unknown_);
  }
}

void Tokenizer::append(std::string_view piece, const Halves& halves, std::vector<int>& ids) const {
  const auto found = pieces_.find(piece);
  if (found == pieces_.end()) return append_bytes(piece, ids);
  const auto parts = halves.find(piece);
  if (vocabulary_.kind(found->second) != Kind::unused || parts == halves.end()) return ids.push_back(found->second);
  for (const std::string_view half : parts->second) append(half, halves, ids);
}

std::vector<int> Tokenizer::encode(const std::string& text) const {
  const std::string clean = normalised(text);
  Work work;
  work.symbols = split(clean);
  merge(work);
  std::vector<int> ids;
  for (int i = work.symbols.empty() ? -1 : 0; i >= 0; i = work.symbols[size_t(i)].next) {
    const Symbol& symbol = work.symbols[size_t(i)];
    if (symbol.whole >= 0) ids.push_back(symbol.whole);
    else append(symbol.piece, work.halves, ids);
  }
  return ids;
}

}  // namespace rksim
