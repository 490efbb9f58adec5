/*
 * list - doubly linked, intrusive: the node is a field of what is listed, nothing is allocated. A head is a node that
 * points at itself when the list is empty; a node in no list is zeroed or points at itself.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define container_of(pointer, type, field) ((type *)(void *)((char *)(pointer) - offsetof(type, field)))
#define list_each(node, head) for (struct list *node = (head)->next; node != (head); node = node->next)
/* The body may take `node` out of the list. */
#define list_each_safe(node, head)                                                                                     \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head);                                  \
         node = node##_next, node##_next = node->next)

static inline void
list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool
list_is_empty(const struct list *l)
{
    return l->next == l;
}
static inline bool
list_is_linked(const struct list *node)
{
    return node->next != NULL && node->next != node;
}
static inline void
list_put_before(struct list *at, struct list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}
static inline void
list_push_back(struct list *head, struct list *node)
{
    list_put_before(head, node);
}
static inline void
list_push_front(struct list *head, struct list *node)
{
    list_put_before(head->next, node);
}
/* Fine for a node in no list. */
static inline void
list_remove(struct list *node)
{
    if (node->next) {
        node->next->prev = node->prev;
        node->prev->next = node->next;
    }
    list_init(node);
}
static inline struct list *
list_pop_front(struct list *head)
{
    struct list *node = head->next;

    if (node == head)
        return NULL;
    list_remove(node);
    return node;
}

#endif
