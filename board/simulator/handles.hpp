// Live handles. A destroyed or invented handle is answered with an error, and a session outlives the call
// that destroys it as long as another call is inside.
#pragma once
#include <memory>

#include "session.hpp"

namespace rksim {

void* remember(std::shared_ptr<Session> session);
std::shared_ptr<Session> find(void* handle);    // throws Refused
std::shared_ptr<Session> forget(void* handle);  // throws Refused

}  // namespace rksim
