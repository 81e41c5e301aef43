#include "kangaroo/topk_confidence.h"

#include "error.h"
#include "rank.h"

kangaroo_status kangaroo_topk_confidence(const kangaroo_topk_confidence_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const kangaroo_status status = check_rank("topk_confidence", *params);
    if (status == KANGAROO_OK && params->num_rows > 0) rank(*params);
    return status;
  });
}
