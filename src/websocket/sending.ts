import { requirePublish } from '../access/grant.ts'
import type { Roster } from '../broker/roster.ts'
import { formatCursor } from '../event.ts'
import { isUser, type Notifications } from '../feeds/notifications.ts'
import type { ClientWriter } from '../http/writes.ts'
import { Denied, Problem } from '../problem.ts'
import { checkTopic, idOf, type Publisher } from '../publisher.ts'
import type { Rules } from '../rules/rules.ts'
import type { AnswerBody, ClientMessage } from '../wire/websocket.ts'
import { checkSize, requireTopic, type Publish, type Read, type SendSignal } from './messages.ts'
import type { Subscriber } from './subscriptions.ts'

/** What sending takes. */
export interface SendingContext {
  readonly hub: { readonly rules: Pick<Rules, 'requirePresence'> }
  readonly roster: Roster
  readonly publisher: Publisher
  readonly notifications: Notifications
  readonly settings: { readonly MAX_EVENT_BYTES: number }
}

/**
 * What a client sends to others, and changes of its own. Each method resolves with the answer, or rejects with a `Problem`;
 * `writer` is what the message counts by.
 */
export class Sending {
  readonly #context: SendingContext
  readonly #sender: Pick<Subscriber, 'id' | 'grant'>

  constructor(context: SendingContext, sender: Pick<Subscriber, 'id' | 'grant'>) {
    this.#context = context
    this.#sender = sender
  }

  async publish(
    { topic, type = 'message', key, ttl }: Publish,
    read: ClientMessage,
    writer: ClientWriter
  ): Promise<AnswerBody> {
    // before anybody looks into the data
    requireTopic(topic)
    requirePublish(writer.grant, [topic])
    const event = {
      topic,
      type,
      data: read.dataOf('data'),
      ...(key !== undefined && { key }),
      ...(ttl !== undefined && { ttl })
    }
    const [appended] = await this.#context.publisher.publish([event], { source: 'events', writer })
    return { id: formatCursor(idOf(appended!)) }
  }

  async markRead({ ids }: Read, writer: ClientWriter): Promise<AnswerBody> {
    const { sub } = this.#sender.grant
    if (sub === null) throw new Denied('forbidden', 'nobody is known whose notifications these are')
    if (!isUser(sub)) throw new Problem('forbidden', `${JSON.stringify(sub)} is not one segment of a topic`)
    return { unread: await this.#context.notifications.markRead(sub, { ids }, { writer }) }
  }

  async signal({ topic }: SendSignal, read: ClientMessage, writer: ClientWriter): Promise<AnswerBody> {
    const { hub, roster, settings } = this.#context
    const { id, grant } = this.#sender
    checkTopic(topic)
    requirePublish(grant, [topic])
    hub.rules.requirePresence(topic)
    writer.take()
    const data = read.dataOf('data')
    checkSize('data', data, settings.MAX_EVENT_BYTES)
    await roster.signal({ topic, sender: id, from: grant.sub, data })
    return {}
  }
}
