// Requests to something outside of the process, a database or an object store: how long each takes,
// and how many fail. Each is a histogram and a counter of the probe that has it.
//
// Thread safety: safe.
#pragma once

namespace prometheus {
class Counter;
class Histogram;
}  // namespace prometheus

namespace longwave {

class RequestProbe {
 public:
  RequestProbe(prometheus::Histogram& seconds, prometheus::Counter& errors)
      : seconds_(seconds), errors_(errors) {}
  // `failed`: by what was asked; an answer that there is no such thing is none of its failures.
  void Took(double seconds, bool failed);

 private:
  prometheus::Histogram& seconds_;
  prometheus::Counter& errors_;
};

}  // namespace longwave
