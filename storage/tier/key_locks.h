// KeyLocks: one lock per chunk key, made when it is wanted and gone when it is free. Held over I/O on that chunk, so
// that stores, deletes and promotions of one chunk come one after the other while all other chunks go on.
//
//   KeyLocks::Hold hold(locks, key);  // until the end of the scope; not recursive
//
// A thread holds at most one key at a time, so holders cannot deadlock.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_KEY_LOCKS_H_
#define KDN_STORAGE_TIER_KEY_LOCKS_H_

#include "absl/container/flat_hash_set.h"
#include "storage/base/mutex.h"
#include "storage/format/digest.h"

namespace kdn {

class KeyLocks {
 public:
  class Hold {
   public:
    Hold(KeyLocks& locks, const ChunkKey& key) : locks_(locks), key_(key) { locks_.Lock(key_); }
    ~Hold() { locks_.Unlock(key_); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    KeyLocks& locks_;
    const ChunkKey key_;
  };

 private:
  void Lock(const ChunkKey& key) {
    MutexLock lock(mu_);
    while (!held_.insert(key).second) released_.Wait(mu_);
  }
  void Unlock(const ChunkKey& key) {
    {
      MutexLock lock(mu_);
      held_.erase(key);
    }
    released_.NotifyAll();
  }

  Mutex mu_;
  CondVar released_;
  absl::flat_hash_set<ChunkKey> held_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_KEY_LOCKS_H_
