#include "handles.hpp"

#include <map>
#include <mutex>

#include "errors.hpp"
#include "log.hpp"

namespace rksim {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<void*, std::shared_ptr<Session>> sessions;
};

// Never destroyed: asynchronous runs may still be looking at it while the process exits.
Registry& registry() {
  static Registry* const only = new Registry();
  return *only;
}

}  // namespace

void* remember(std::shared_ptr<Session> session) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  void* const handle = session.get();
  registry().sessions[handle] = std::move(session);
  return handle;
}

std::shared_ptr<Session> find(void* handle) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  const auto found = registry().sessions.find(handle);
  if (found == registry().sessions.end()) RKSIM_REFUSE("LLMHandle is %s", handle ? "not valid" : "NULL");
  return found->second;
}

std::shared_ptr<Session> forget(void* handle) {
  std::shared_ptr<Session> session = find(handle);
  std::lock_guard<std::mutex> lock(registry().mutex);
  registry().sessions.erase(handle);
  return session;
}

}  // namespace rksim
