// Interrupt: ends from one thread what another one waits for: a gRPC call, or a pause between two.
//
//   Interrupt::Scope scope(interrupt, context);    // the waiting thread
//   stub.Range(&context, request, &response);
//
//   interrupt.Fire();                              // any other
//
// Thread-safety: any thread may call; a Scope belongs to one, and one Scope is open at a time.
#ifndef KDN_PLACEMENT_REGISTRY_INTERRUPT_H_
#define KDN_PLACEMENT_REGISTRY_INTERRUPT_H_

#include <grpcpp/client_context.h>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "storage/base/mutex.h"

namespace kdn {

class Interrupt {
 public:
  Interrupt() = default;
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // For good.
  void Fire() ABSL_LOCKS_EXCLUDED(mu_);
  bool fired() const ABSL_LOCKS_EXCLUDED(mu_);
  // False when it was fired, before or meanwhile.
  bool SleepFor(absl::Duration length) ABSL_LOCKS_EXCLUDED(mu_);

  // While it lives, Fire cancels the call.
  class Scope {
   public:
    Scope(Interrupt& interrupt, grpc::ClientContext& context);
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope();

   private:
    Interrupt& interrupt_;
  };

 private:
  mutable Mutex mu_;
  CondVar changed_;
  bool fired_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mu_) = nullptr;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_INTERRUPT_H_
