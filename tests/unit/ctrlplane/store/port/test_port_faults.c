/* The conformance test notices what it is there for: each of these engines has one fault. */
#include "run.h"

#include "faulty_engine.h"

TestSuite(port_faults, .timeout = 300);

Test(port_faults, each_is_noticed)
{
    char why[sizeof(((struct run *)0)->why)];
    uint64_t seed = first_seed();
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        fault = (enum fault)i;
        bool good = run_once(faulty_engine_open, seed, 3000, why);
        memory_forget();
        fprintf(stderr, "BELFRY_SEED=%llu %s: %s\n", (unsigned long long)seed, fault_names[i],
                good ? "conforms" : why);
        cr_expect_eq(good, fault == FAULT_NONE, "BELFRY_SEED=%llu %s", (unsigned long long)seed,
                     fault_names[i]);
    }
}
