import t from 'tap'

// A Node without what src/net/direct.ts asks of it: everything goes through the sockets' streams
Reflect.deleteProperty(process, 'binding')

const { direct } = await import('../../src/net/direct.ts')
t.equal(direct, null)
await import('../net/connection.test.ts')
await import('./slow-reader.test.ts')
