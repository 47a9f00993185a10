/* Whom an event is for. Types only. */
#pragma once

/* Numbers are stored (status rows): never change or reuse one. */
enum bf_target {
    BF_TARGET_USERS = 0, /* user_id or recipients */
    BF_TARGET_TOPIC = 1,
    BF_TARGET_BROADCAST = 2,
    BF_TARGET_COUNT /* segments come with their own work; refused by name until then */
};
