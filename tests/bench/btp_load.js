// Load generator and receiver for any BTP/2.0 connector: this process plays the sender and the
// receiver of each pair, both as BTP clients, keeps WINDOW Prepares in flight over all pairs, and
// answers each with the Fulfill it asks for.
//
// usage: node btp_load.js --pair SENDER_URL,TOKEN,RECEIVER_URL,TOKEN,DESTINATION [--pair …]
//        [--total 20000] [--window 128] [--data-bytes 32] [--warm-up 0] [--settle-ms 0]
//        [--destinations 0]
//   --settle-ms  how long to wait between connecting and sending (some connectors spread routes first)
//   DESTINATION  with --destinations N it ends in six digits, which go round through 0 … N - 1
// prints one JSON object, and exits 0 only when every packet was fulfilled.
'use strict'

const crypto = require('crypto')
const { setTimeout: sleep } = require('timers/promises')
const { parseArgs } = require('util')
const WebSocket = require('../interop/node_modules/ws')

const RESPONSE = 1
const ERROR = 2
const MESSAGE = 6
const PREPARE = 12
const FULFILL = 13
const REJECT = 14

const AMOUNT = 1000n
const EXPIRY_MS = 25000
const TIMEOUT_MS = 120000
const DESTINATION_DIGITS = 6
const CONNECT_TRIES = 50
const CONNECT_RETRY_MS = 100

const fulfillment = crypto.createHash('sha256').update('bench').digest()
const condition = crypto.createHash('sha256').update(fulfillment).digest()

function varOctets (octets) {
  const length = octets.length
  if (length < 128) {
    return Buffer.concat([Buffer.from([length]), octets])
  }
  const prefix = length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(prefix), octets])
}

// The place and length of length-prefixed octets at `offset`.
function readVarOctets (buffer, offset) {
  const first = buffer[offset]
  if (first < 128) {
    return [offset + 1, first]
  }
  const octets = first & 0x7f
  return [offset + 1 + octets, buffer.readUIntBE(offset + 1, octets)]
}

function subProtocol (name, contentType, data) {
  return Buffer.concat([varOctets(Buffer.from(name)), Buffer.from([contentType]), varOctets(data)])
}

function frame (type, requestId, subProtocols) {
  const head = Buffer.alloc(5)
  head[0] = type
  head.writeUInt32BE(requestId, 1)
  const count = Buffer.from([1, subProtocols.length])
  return Buffer.concat([head, varOctets(Buffer.concat([count, ...subProtocols]))])
}

function ilpFrame (type, requestId, packetType, body) {
  const packet = Buffer.concat([Buffer.from([packetType]), varOctets(body)])
  return frame(type, requestId, [subProtocol('ilp', 0, packet)])
}

// The ILP packet in a frame, if it has a sub-protocol.
function packetOf (data) {
  const [body] = readVarOctets(data, 5)
  const first = body + 1 + data[body]
  if (first >= data.length) {
    return null
  }
  const [name, nameLength] = readVarOctets(data, first)
  const [packet, length] = readVarOctets(data, name + nameLength + 1)
  return data.subarray(packet, packet + length)
}

function dial (url, token) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { perMessageDeflate: false })
    socket.once('error', reject)
    socket.once('open', () => {
      socket._socket.setNoDelay(true)
      socket.send(frame(MESSAGE, 1, [
        subProtocol('auth', 0, Buffer.alloc(0)),
        subProtocol('auth_username', 1, Buffer.alloc(0)),
        subProtocol('auth_token', 1, Buffer.from(token))
      ]))
    })
    socket.once('message', (data) => {
      if (data[0] === RESPONSE) {
        resolve(socket)
      } else {
        reject(new Error(`${url} refused the token: ${data.toString('latin1')}`))
      }
    })
  })
}

async function connect (url, token) {
  for (let left = CONNECT_TRIES; ; left--) {
    try {
      return await dial(url, token)
    } catch (error) {
      if (error.code !== 'ECONNREFUSED' || left === 0) {
        throw error
      }
      await sleep(CONNECT_RETRY_MS)
    }
  }
}

function fulfillEverything (socket) {
  const response = ilpFrame(RESPONSE, 0, FULFILL, Buffer.concat([fulfillment, Buffer.from([0])]))
  socket.on('message', (data) => {
    if (data[0] !== MESSAGE) {
      return
    }
    const copy = Buffer.from(response)
    copy.writeUInt32BE(data.readUInt32BE(1), 1)
    socket.send(copy)
  })
}

// One message is built a second. Each packet is a copy with its own id and its own data, since
// some connectors drop repeats.
class Template {
  constructor (destination, dataBytes, destinations) {
    this.destination = destination
    this.destinations = destinations
    this.dataBytes = Math.max(4, dataBytes)
    this.builtAt = 0
  }

  make (requestId) {
    const now = Date.now()
    if (now - this.builtAt > 1000) {
      this.build(now)
    }
    const message = Buffer.from(this.message)
    message.writeUInt32BE(requestId, 1)
    message.writeUInt32BE(requestId, message.length - 4)
    if (this.destinations) {
      const number = String(requestId % this.destinations).padStart(DESTINATION_DIGITS, '0')
      message.write(number, this.digitsAt, 'ascii')
    }
    return message
  }

  build (now) {
    const amount = Buffer.alloc(8)
    amount.writeBigUInt64BE(AMOUNT)
    const expiry = new Date(now + EXPIRY_MS).toISOString().replace(/\D/g, '')
    const data = varOctets(Buffer.alloc(this.dataBytes, 7))
    this.message = ilpFrame(MESSAGE, 0, PREPARE, Buffer.concat([
      amount,
      Buffer.from(expiry, 'ascii'),
      condition,
      varOctets(Buffer.from(this.destination)),
      data
    ]))
    this.digitsAt = this.message.length - data.length - DESTINATION_DIGITS
    this.builtAt = now
  }
}

// Send `total` packets through one sender, `window` at a time; what became of them.
function run (sender, template, total, window, firstId) {
  return new Promise((resolve) => {
    const started = new Map()
    const latencies = []
    const rejected = {}
    let fulfilled = 0
    let sent = 0

    function sendOne () {
      const requestId = firstId + sent
      sent++
      started.set(requestId, performance.now())
      sender.send(template.make(requestId))
    }

    sender.on('message', function receive (data) {
      if (data[0] !== RESPONSE && data[0] !== ERROR) {
        return
      }
      const requestId = data.readUInt32BE(1)
      const start = started.get(requestId)
      if (start === undefined) {
        return
      }
      started.delete(requestId)
      latencies.push(performance.now() - start)
      const packet = packetOf(data)
      if (packet && packet[0] === FULFILL) {
        fulfilled++
      } else {
        const reason = packet && packet[0] === REJECT ? packet.toString('latin1', 2, 90) : `BTP type ${data[0]}`
        rejected[reason] = (rejected[reason] || 0) + 1
      }
      if (sent < total) {
        sendOne()
      } else if (latencies.length === total) {
        sender.off('message', receive)
        resolve({ latencies, fulfilled, rejected })
      }
    })
    for (let i = 0; i < Math.min(window, total); i++) {
      sendOne()
    }
  })
}

// The same over all pairs: total and window are shared among them.
async function runAll (pairs, total, window, firstId) {
  const share = (amount) => Math.max(1, Math.floor(amount / pairs.length))
  const runs = pairs.map((pair) => run(pair.sender, pair.template, share(total), share(window), firstId))
  const results = await Promise.all(runs)
  return {
    total: share(total) * pairs.length,
    latencies: Float64Array.from(results.flatMap((result) => result.latencies)).sort(),
    fulfilled: results.reduce((sum, result) => sum + result.fulfilled, 0),
    rejected: Object.assign({}, ...results.map((result) => result.rejected))
  }
}

async function main () {
  const { values } = parseArgs({
    options: {
      pair: { type: 'string', multiple: true },
      total: { type: 'string', default: '20000' },
      window: { type: 'string', default: '128' },
      'data-bytes': { type: 'string', default: '32' },
      'warm-up': { type: 'string', default: '0' },
      'settle-ms': { type: 'string', default: '0' },
      destinations: { type: 'string', default: '0' }
    }
  })
  const total = Number(values.total)
  const window = Number(values.window)
  const warmUp = Number(values['warm-up'])

  const pairs = []
  for (const text of values.pair) {
    const [senderUrl, senderToken, receiverUrl, receiverToken, destination] = text.split(',')
    fulfillEverything(await connect(receiverUrl, receiverToken))
    const sender = await connect(senderUrl, senderToken)
    const template = new Template(destination, Number(values['data-bytes']), Number(values.destinations))
    pairs.push({ sender, template })
  }

  await sleep(Number(values['settle-ms']))
  setTimeout(() => {
    console.error(`not done after ${TIMEOUT_MS / 1000} s`)
    process.exit(2)
  }, TIMEOUT_MS)

  const firstId = 10
  if (warmUp) {
    await runAll(pairs, warmUp, window, firstId)
  }
  const cpuBefore = process.cpuUsage()
  const start = performance.now()
  const result = await runAll(pairs, total, window, firstId + warmUp)
  const seconds = (performance.now() - start) / 1000
  const cpu = process.cpuUsage(cpuBefore)
  const percentile = (share) => Number(result.latencies[Math.floor(result.latencies.length * share)].toFixed(3))

  console.log(JSON.stringify({
    total: result.total,
    fulfilled: result.fulfilled,
    rejected: result.rejected,
    seconds: Number(seconds.toFixed(3)),
    pps: Math.round(result.total / seconds),
    p50_ms: percentile(0.5),
    p99_ms: percentile(0.99),
    // How busy the generator itself was: near 1 it may be what limits.
    generator_load: Number(((cpu.user + cpu.system) / 1e6 / seconds).toFixed(2))
  }))
  process.exit(result.fulfilled === result.total ? 0 : 1)
}

main().catch((error) => {
  console.error(String(error))
  process.exit(3)
})
