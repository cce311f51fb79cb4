/** Being there, on one topic: over a WebSocket, which is opened when somebody wants it. */
import { token, user } from './access.js'
import { connect } from './client.js'

/** Where this page is a member, and who else: by the id of a member. */
export const presence = { topic: undefined, members: new Map(), onChange() {}, onSignal() {} }

let connection
let membership
let subscription

/** Joins a topic, and hears its signals. Rejects where the server refuses. */
export async function join(topic) {
  const { members } = presence
  const hub = connected()
  subscription = await hub.subscribe(topic, {
    // these come over the stream
    onEvent() {},
    onSignal: signal => presence.onSignal(signal),
    onEnd: () => void leave()
  })
  membership = await hub.join(topic, {
    info: { name: user === undefined ? 'the live page' : `${user} on the live page` },
    onMembers(all) {
      members.clear()
      for (const member of all) members.set(member.id, member)
      presence.onChange()
    },
    onJoined(member) {
      members.set(member.id, member)
      presence.onChange()
    },
    onLeft({ id }) {
      members.delete(id)
      presence.onChange()
    },
    onEnd: () => void leave()
  })
  presence.topic = topic
  presence.onChange()
}

export async function leave() {
  presence.topic = undefined
  presence.members.clear()
  presence.onChange()
  const had = [membership?.leave(), subscription?.unsubscribe()]
  membership = subscription = undefined
  await Promise.allSettled(had)
}

/** Tells those who listen to a topic over a WebSocket now. Rejects where the server refuses. */
export function signal(topic, data) {
  return connected().signal(topic, data)
}

/** The page's connection, opened by the first who asks for it. */
export function connected() {
  if (connection && connection.state !== 'closed') return connection
  connection = connect({ url: '.', ...(token && { token }) })
  return connection
}
