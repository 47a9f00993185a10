/* The script in force, handed from the control thread to the workers: see sim.h. */
#include "sim.h"

uint32_t sim_script_install(struct sim *sim, struct sim_script *s)
{
    pthread_mutex_lock(&sim->script_lock);
    struct sim_script *old = sim->script;
    sim->script = s;
    pthread_mutex_unlock(&sim->script_lock);
    sim_script_unref(old);
    /* release: a worker that sees the new version finds the new script under the lock */
    return atomic_fetch_add_explicit(&sim->script_version, 1, memory_order_release) + 1;
}

struct sim_script *sim_script_current(struct sim *sim)
{
    pthread_mutex_lock(&sim->script_lock);
    struct sim_script *s = sim_script_ref(sim->script);
    pthread_mutex_unlock(&sim->script_lock);
    return s;
}
