#include "integration/link/link_proxy.h"

#include <sys/prctl.h>

#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<std::unique_ptr<LinkProxy>> LinkProxy::Start(const Endpoint& upstream, const LinkOptions& options) {
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<LinkLoop> loop, LinkLoop::Create(upstream, options));
  return std::unique_ptr<LinkProxy>(new LinkProxy(std::move(loop)));
}

LinkProxy::~LinkProxy() {
  Do([this] { stopping_ = true; });
  thread_.join();
}

absl::Status LinkProxy::SetOptions(const LinkOptions& options) {
  KDN_RETURN_IF_ERROR(ValidateLinkOptions(options));
  Do([&] { loop_->SetOptions(options); });
  return absl::OkStatus();
}

void LinkProxy::Cut() {
  Do([this] { loop_->Cut(); });
}

void LinkProxy::Stall() {
  Do([this] { loop_->Stall(); });
}

void LinkProxy::Resume() {
  Do([this] { loop_->Resume(); });
}

LinkStats LinkProxy::Stats() {
  LinkStats stats;
  Do([&] { stats = loop_->Stats(); });
  return stats;
}

void LinkProxy::Run() {
  prctl(PR_SET_TIMERSLACK, 1UL);  // nanoseconds: by default the kernel may wake a thread 50 microseconds late
  while (!stopping_) {
    loop_->Turn();
    std::vector<const std::function<void()>*> tasks;
    {
      MutexLock lock(mu_);
      tasks.swap(tasks_);
    }
    for (const std::function<void()>* task : tasks) (*task)();
    MutexLock lock(mu_);
    finished_ += tasks.size();
    if (!tasks.empty()) done_.NotifyAll();
  }
}

void LinkProxy::Do(const std::function<void()>& task) {
  MutexLock lock(mu_);
  tasks_.push_back(&task);
  const uint64_t number = ++added_;
  loop_->Wake();
  while (finished_ < number) done_.Wait(mu_);
}

}  // namespace kdn
