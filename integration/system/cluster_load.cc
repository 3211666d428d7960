#include "integration/system/cluster_load.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "integration/system/cluster_fixture.h"

namespace kdn {

ClusterLoad::ClusterLoad(std::function<std::shared_ptr<Transport>()> connect, const Options& options)
    : connect_(std::move(connect)), options_(options) {}

ClusterLoad::~ClusterLoad() { Stop(); }

void ClusterLoad::Start() {
  threads_.emplace_back([this] { StoreAll(); });
  for (int i = 0; i < options_.readers; ++i) {
    threads_.emplace_back([this, i] { FetchSome(static_cast<uint64_t>(i) + 1); });
  }
}

ClusterLoad::Counts ClusterLoad::Stop() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return counts();
}

ClusterLoad::Counts ClusterLoad::counts() const {
  MutexLock lock(mu_);
  return counts_;
}

void ClusterLoad::AwaitProgress(uint64_t documents) {
  MutexLock lock(mu_);
  const Counts from = counts_;
  while (!stop_ && (counts_.stored < std::min(from.stored + documents, options_.max_documents) ||
                    counts_.fetched < from.fetched + documents)) {
    progress_.Wait(mu_);
  }
}

void ClusterLoad::StoreAll() {
  const std::unique_ptr<Client> client = NewDocumentClient(connect_());
  for (uint64_t i = 0; i < options_.max_documents && !stop_; ++i) {
    const uint64_t number = options_.first_document + i;
    const bool stored = Document(number).Store(*client, options_.ack, options_.store_deadline);
    MutexLock lock(mu_);
    if (stored) acknowledged_.push_back(number);
    ++(stored ? counts_.stored : counts_.not_stored);
    progress_.NotifyAll();
  }
}

void ClusterLoad::FetchSome(uint64_t seed) {
  const std::unique_ptr<Client> client = NewDocumentClient(connect_());
  std::mt19937_64 random(seed);
  absl::Time missing_since = absl::InfiniteFuture();  // the document at hand
  uint64_t number = 0;
  while (!stop_) {
    if (missing_since == absl::InfiniteFuture()) {
      MutexLock lock(mu_);
      while (acknowledged_.empty() && !stop_) {
        progress_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
      }
      if (stop_) return;
      number = acknowledged_[random() % acknowledged_.size()];
    }
    const absl::Time begin = absl::Now();
    std::string why;
    const Document::Outcome outcome = Document(number).Fetch(*client, options_.fetch_deadline, &why);
    if (outcome != Document::Outcome::kWhole && options_.where && counts().missed == 0) why += options_.where(number);
    MutexLock lock(mu_);
    if (outcome == Document::Outcome::kWrong) ++counts_.wrong;
    if (outcome == Document::Outcome::kWhole) {
      ++counts_.fetched;
      if (missing_since != absl::InfiniteFuture()) {
        counts_.longest_unavailable = std::max(counts_.longest_unavailable, absl::Now() - missing_since);
      }
      missing_since = absl::InfiniteFuture();
    } else {
      ++counts_.missed;
      if (counts_.first_miss.empty()) counts_.first_miss = why;
      missing_since = std::min(missing_since, begin);
      counts_.longest_unavailable = std::max(counts_.longest_unavailable, absl::Now() - missing_since);
    }
    progress_.NotifyAll();
  }
}

uint64_t ClusterLoad::VerifyAll(absl::Duration patience) {
  const std::unique_ptr<Client> client = NewDocumentClient(connect_());
  std::vector<uint64_t> numbers;
  {
    MutexLock lock(mu_);
    numbers = acknowledged_;
  }
  uint64_t lost = 0;
  for (const uint64_t number : numbers) {
    const absl::Time deadline = absl::Now() + patience;
    Document::Outcome outcome = Document::Outcome::kPart;
    while (outcome == Document::Outcome::kPart && absl::Now() < deadline) {
      outcome = Document(number).Fetch(*client, options_.fetch_deadline);
    }
    if (outcome == Document::Outcome::kPart) ++lost;
    MutexLock lock(mu_);
    if (outcome == Document::Outcome::kWrong) ++counts_.wrong;
  }
  return lost;
}

}  // namespace kdn
