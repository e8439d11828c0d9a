// Bytes of tokens to whole characters.
#pragma once
#include <string>

namespace rksim {

class Characters {
 public:
  // Takes a token's bytes. True: take() has text to print; false: the last character is not whole yet.
  bool add(const std::string& bytes);
  std::string take();
  void forget() { held_.clear(); }

 private:
  std::string held_;
};

}  // namespace rksim
