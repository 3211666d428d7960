// QuotaBook: how much of each tier a space may hold, by whom it was said: by the node's flags, or at run time, which
// stands above them and is kept in a file of the node's first disk.
//
//   KDN_ASSIGN_OR_RETURN(const auto quotas, QuotaBook::Open(directory, flags.store.quotas));
//   flags.store.quotas = quotas->InForce();                            // before the store is opened
//   …
//   quotas->Set(space, 0.1, [&](const SpaceQuotas& now) { return store.SetQuotas(now).status(); });
//
// The file, `quotas`, is text: "kdn-quotas 1", then a line for each quota, "default SHARE" or the space's 64
// hexadecimal digits and its share, from 0 to 1 (docs/formats.md, "Quota file").
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_NODE_ADMIN_QUOTA_BOOK_H_
#define KDN_KDN_NODE_ADMIN_QUOTA_BOOK_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/mutex.h"
#include "storage/format/digest.h"
#include "storage/tier/residents.h"

namespace kdn {

inline constexpr size_t kMaxRunTimeQuotas = 1024;  // of named spaces

enum class QuotaSource : uint8_t { kNone, kFlag, kRunTime };

struct QuotaInForce {
  double share = 1;  // of each tier's budget; 1: no limit
  QuotaSource source = QuotaSource::kNone;
  bool own = false;  // said of this space, and not of all
};

class QuotaBook {
 public:
  // Without a directory nothing is kept. A directory without the file has no quotas that were set at run time.
  // DATA_LOSS naming the file, and what to do about it, when it makes no sense; UNAVAILABLE when it cannot be read.
  static absl::StatusOr<std::shared_ptr<QuotaBook>> Open(const std::string& directory, const SpaceQuotas& flags);

  bool kept() const { return !path_.empty(); }
  SpaceQuotas InForce() const;
  QuotaInForce Default() const;
  QuotaInForce Of(const SpaceId& space) const;
  // All spaces that a quota names.
  std::map<SpaceId, QuotaInForce> Named() const;

  // Sets the quota of a space, or without one the default; without a share, takes back what was set so. It is written
  // down, then `apply` is given all that is in force. One call at a time.
  // INVALID_ARGUMENT: a share that is not within 0 and 1. RESOURCE_EXHAUSTED: too many spaces have one. UNAVAILABLE:
  // the file cannot be written, and nothing has changed. Otherwise what `apply` returns.
  absl::Status Set(const std::optional<SpaceId>& space, const std::optional<double>& share,
                   const std::function<absl::Status(const SpaceQuotas&)>& apply);

 private:
  struct RunTime {
    std::optional<double> each;
    std::map<SpaceId, double> named;
  };

  QuotaBook(std::string path, const SpaceQuotas& flags) : path_(std::move(path)), flags_(flags) {}

  absl::Status Load();
  absl::Status Save(const RunTime& quotas) const;
  SpaceQuotas Merged() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  QuotaInForce DefaultLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string path_;  // empty: nothing is kept
  const SpaceQuotas flags_;
  Mutex change_mu_;  // held over a whole change; before mu_
  mutable Mutex mu_;
  RunTime set_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_QUOTA_BOOK_H_
