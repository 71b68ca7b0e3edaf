package dev.gantry.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.TreeSet;

import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.MessageExt;

/** Keeps every message that a consumer is given, in the order of arrival, and acknowledges it. */
final class Inbox implements MessageListenerConcurrently {
    private final List<Arrival> arrivals = Collections.synchronizedList(new ArrayList<>());

    /** One delivery of one message. */
    static final class Arrival {
        final MessageExt message;
        final long atMs;

        Arrival(MessageExt message) {
            this.message = message;
            this.atMs = System.currentTimeMillis();
        }

        String body() {
            return text(message);
        }
    }

    static String text(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    @Override
    public ConsumeConcurrentlyStatus consumeMessage(List<MessageExt> messages, ConsumeConcurrentlyContext context) {
        messages.forEach(this::add);
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    }

    void add(MessageExt message) {
        arrivals.add(new Arrival(message));
    }

    int size() {
        return arrivals.size();
    }

    List<Arrival> all() {
        synchronized (arrivals) {
            return new ArrayList<>(arrivals);
        }
    }

    /** Bodies in the order of arrival, repetitions included. */
    List<String> bodies() {
        List<String> bodies = new ArrayList<>();
        all().forEach(arrival -> bodies.add(arrival.body()));
        return bodies;
    }

    void waitFor(int count) throws Exception {
        Check.until(count + " messages arrive", () -> size() >= count, this::bodies);
    }

    /** Waits for these bodies and checks that each came once and nothing else did. */
    void waitForExactly(List<String> expected) throws Exception {
        waitFor(expected.size());
        List<String> sorted = bodies();
        Collections.sort(sorted);
        Check.same(new ArrayList<>(new TreeSet<>(expected)), sorted, "bodies received");
    }
}
