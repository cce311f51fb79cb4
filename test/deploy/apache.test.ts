import { testProxy } from './outages.ts'
import { KINDS } from './proxies.ts'

testProxy('apache', KINDS.apache)
