// ClusterLoad: clients that store and fetch without a pause, and check every byte. What they saw is counted, and a
// document that was acknowledged DURABLE is asked for until the end.
//
//   ClusterLoad load([this] { return NewTransport(); }, {.readers = 2});
//   load.Start();
//   …
//   const ClusterLoad::Counts counts = load.Stop();
//   EXPECT_EQ(counts.wrong, 0u);
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_SYSTEM_CLUSTER_LOAD_H_
#define KDN_INTEGRATION_SYSTEM_CLUSTER_LOAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "kdn-client/transport.h"
#include "storage/base/mutex.h"

namespace kdn {

class ClusterLoad {
 public:
  struct Options {
    int readers = 2;
    Ack ack = Ack::kDurable;
    uint64_t first_document = 1;
    uint64_t max_documents = 4000;
    absl::Duration store_deadline = absl::Seconds(20);
    absl::Duration fetch_deadline = absl::Seconds(1);
    // Tells where a document is, for what a test prints when one is missed.
    std::function<std::string(uint64_t document)> where = {};
  };
  struct Counts {
    uint64_t stored = 0;                 // documents acknowledged
    uint64_t not_stored = 0;             // documents that were not
    uint64_t fetched = 0;                // fetches that brought all of a document
    uint64_t missed = 0;                 // fetches of an acknowledged document that did not
    uint64_t wrong = 0;                  // fetches with a wrong byte
    absl::Duration longest_unavailable;  // of a document: from the fetch that missed it to the one that brought it
    std::string first_miss;              // what it said
  };

  ClusterLoad(std::function<std::shared_ptr<Transport>()> connect, const Options& options);
  ~ClusterLoad();
  ClusterLoad(const ClusterLoad&) = delete;
  ClusterLoad& operator=(const ClusterLoad&) = delete;

  void Start();
  // Waits until at least so many more documents are stored and fetched than now.
  void AwaitProgress(uint64_t documents);
  Counts Stop();
  Counts counts() const;

  // Fetches every document that was acknowledged once more, each until it comes or `patience` is over. Returns how many
  // did not come; `wrong` is counted.
  uint64_t VerifyAll(absl::Duration patience);

 private:
  void StoreAll();
  void FetchSome(uint64_t seed);

  const std::function<std::shared_ptr<Transport>()> connect_;
  const Options options_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
  mutable Mutex mu_;
  CondVar progress_;
  std::vector<uint64_t> acknowledged_ ABSL_GUARDED_BY(mu_);
  Counts counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_SYSTEM_CLUSTER_LOAD_H_
