// The best tokens of the vocabulary, shared by top1_confidence and topk_confidence.
#pragma once

#include "kangaroo/topk_confidence.h"

namespace kangaroo {

// What is wrong with the parameters, in the name of `op`.
kangaroo_status check_rank(const char* op, const kangaroo_topk_confidence_params& p);

// topk_confidence, its parameters checked.
void rank(const kangaroo_topk_confidence_params& p);

}  // namespace kangaroo
