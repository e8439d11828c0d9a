// What lasts as long as one run. Included by the files that implement it.
#pragma once
#include "session.hpp"

namespace rksim {

using Clock = std::chrono::steady_clock;

inline float ms_since(Clock::time_point began) {
  return std::chrono::duration<float, std::milli>(Clock::now() - began).count();
}

struct Session::Run {
  const Request& request;
  const Emit& emit;
  std::shared_ptr<const Adapter> adapter;
  bool resumed;  // after a pause

  // Of each lane.
  struct Sequence {
    bool open = true;
    int id = -1;       // the token of this step; below zero: none
    int end = -1;      // the EOS that ended it
    std::string text;  // of that token
  };
  std::vector<Sequence> sequences;
  int steps = 0;
  Clock::time_point decoding = {};  // since when
  bool any_open() const;

  bool follows(const Lane& lane) const;
};

}  // namespace rksim
