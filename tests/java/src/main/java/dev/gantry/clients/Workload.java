package dev.gantry.clients;

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * One client as a program of its own, as users run it: it is started and stopped from outside, and prints what
 * happens, one line each. The clients' settings are their makers' defaults.
 * <pre>
 * Workload NAMESERVER send TOPIC STEM COUNT      sends STEM-0, STEM-1, … until COUNT were answered:
 *                                                "answered BODY", "failed BODY: reason"
 * Workload NAMESERVER consume GROUP TOPIC COPIES receives until it is told to end, and sends a copy of each message to
 *                                                COPIES before it acknowledges it; the first attempt at a body that
 *                                                ends with "!" fails: "got BODY attempt N"
 * Workload NAMESERVER read TOPIC COUNT           reads TOPIC from its first message until it holds COUNT different
 *                                                bodies: "body BODY"
 * </pre>
 */
public final class Workload {
    /** Pause between two messages, so that an outage falls between them and not after them. */
    private static final long SEND_PAUSE_MS = 2;
    /** Failures in a row after which nothing will come any more: each takes the client's timeout of 3 s, or 20 ms. */
    private static final int FAILURES_MAX = 10_000;
    private static final long FAILURE_PAUSE_MS = 20;

    private final PrintStream out = System.out;
    private final String nameserver;

    private Workload(String nameserver) {
        this.nameserver = nameserver;
    }

    public static void main(String[] args) throws Exception {
        Workload workload = new Workload(args[0]);
        switch (args[1]) {
            case "send":
                workload.send(args[2], args[3], Integer.parseInt(args[4]));
                break;
            case "consume":
                workload.consume(args[2], args[3], args[4]);
                break;
            case "read":
                workload.read(args[2], Integer.parseInt(args[3]));
                break;
            default:
                throw new IllegalArgumentException("unknown workload " + args[1]);
        }
        // Clients leave threads behind that are no daemons.
        System.exit(0);
    }

    private DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("workload");
        producer.setNamesrvAddr(nameserver);
        producer.start();
        return producer;
    }

    private void send(String topic, String stem, int count) throws Exception {
        DefaultMQProducer producer = producer();
        int answered = 0;
        int failures = 0;
        for (int i = 0; answered < count; i++) {
            String body = stem + "-" + i;
            try {
                SendStatus status = producer.send(World.message(topic, "TagA", body)).getSendStatus();
                Check.same(SendStatus.SEND_OK, status, "send status");
                out.println("answered " + body);
                answered++;
                failures = 0;
                Thread.sleep(SEND_PAUSE_MS);
            } catch (Exception e) {
                out.println("failed " + body + ": " + e.toString().replace('\n', ' '));
                failures++;
                Check.that(failures < FAILURES_MAX, FAILURES_MAX + " failures in a row");
                Thread.sleep(FAILURE_PAUSE_MS);
            }
        }
        producer.shutdown();
    }

    private void consume(String group, String topic, String copies) throws Exception {
        DefaultMQProducer producer = producer();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameserver);
        consumer.subscribe(topic, "*");
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                if (!handled(producer, message, copies)) {
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        CountDownLatch told = new CountDownLatch(1);
        // The client writes its offsets back when it shuts down.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.shutdown();
            producer.shutdown();
            told.countDown();
        }));
        consumer.start();
        out.println("consuming " + topic + " as " + group);
        told.await();
    }

    private boolean handled(DefaultMQProducer producer, MessageExt message, String copies) {
        String body = Inbox.text(message);
        out.println("got " + body + " attempt " + message.getReconsumeTimes());
        if (body.endsWith("!") && message.getReconsumeTimes() == 0) {
            return false;
        }
        try {
            producer.send(new Message(copies, body.getBytes(StandardCharsets.UTF_8)));
            return true;
        } catch (Exception e) {
            out.println("no copy of " + body + ": " + e);
            return false;
        }
    }

    @SuppressWarnings("deprecation")
    private void read(String topic, int count) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer("workload-readers");
        consumer.setNamesrvAddr(nameserver);
        consumer.start();
        List<String> bodies = new ArrayList<>();
        Check.until(count + " different bodies in " + topic, () -> {
            bodies.clear();
            for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
                PullScenarios.messages(consumer, queue, "*").forEach(message -> bodies.add(Inbox.text(message)));
            }
            return new TreeSet<>(bodies).size() >= count;
        }, bodies::size);
        bodies.forEach(body -> out.println("body " + body));
        consumer.shutdown();
    }
}
