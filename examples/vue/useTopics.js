import { onScopeDispose, shallowRef, toValue, watch } from 'vue'
import { subscribe } from 'ringside-hub/client'

/**
 * The last events of topics, the oldest first, and what the connection is. The topics may be a ref or a getter.
 *
 *     const { events, state } = useTopics('orders', { rewind: 20 })
 *
 * `options` are those of `subscribe`, and `keep`: how many events are kept.
 */
export function useTopics(topics, { keep = 100, ...options } = {}) {
  const [events, gaps, state] = [shallowRef([]), shallowRef([]), shallowRef('connecting')]
  let subscription

  // by what they hold: a getter may give a new array each time
  const stop = watch(
    () => JSON.stringify(toValue(topics)),
    wanted => {
      subscription?.close()
      events.value = []
      gaps.value = []
      subscription = subscribe(JSON.parse(wanted), {
        ...options,
        onEvent: event => (events.value = [...events.value, event].slice(-keep)),
        onGap: gap => (gaps.value = [...gaps.value, gap].slice(-keep)),
        onState: now => (state.value = now)
      })
    },
    { immediate: true }
  )
  onScopeDispose(() => {
    stop()
    subscription.close()
  })
  return { events, gaps, state }
}
