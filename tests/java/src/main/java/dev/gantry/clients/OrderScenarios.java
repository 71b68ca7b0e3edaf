package dev.gantry.clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** What an orderly consumer is promised: a queue is locked by one member and read in order. */
final class OrderScenarios {
    private static final int QUEUES = 4;
    private static final int MESSAGES = 40;

    private OrderScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("orderly_consumers_keep_the_order_of_each_queue", OrderScenarios::keepsOrder);
        all.put("orderly_consumer_repeats_a_failed_message_before_the_next", OrderScenarios::suspends);
    }

    private static void startOrderly(World world, String group, String topic, MessageListenerOrderly listener) throws Exception {
        DefaultMQPushConsumer consumer = world.consumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(listener);
        world.start(consumer);
    }

    private static void keepsOrder(World world) throws Exception {
        String topic = world.topic(QUEUES);
        World.sendRoundQueues(world.producer(), topic, "m", MESSAGES);
        Inbox inbox = new Inbox();
        for (int i = 0; i < 2; i++) {
            startOrderly(world, world.name("orderly"), topic, (messages, context) -> {
                messages.forEach(inbox::add);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        }
        inbox.waitFor(MESSAGES);
        Map<Integer, Long> next = new TreeMap<>();
        for (Inbox.Arrival arrival : inbox.all()) {
            int queue = arrival.message.getQueueId();
            long expected = next.getOrDefault(queue, 0L);
            // A queue that changes hands may repeat what its old owner had not committed, and never skip.
            Check.that(arrival.message.getQueueOffset() <= expected,
                "queue " + queue + ": offset " + arrival.message.getQueueOffset() + " came before " + expected);
            next.put(queue, Math.max(expected, arrival.message.getQueueOffset() + 1));
        }
        for (Map.Entry<Integer, Long> queue : next.entrySet()) {
            Check.same((long) MESSAGES / QUEUES, queue.getValue(), "messages of queue " + queue.getKey());
        }
        Check.same(QUEUES, next.size(), "queues read");
    }

    private static void suspends(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        List<String> sent = World.sendRoundQueues(producer, topic, "m", 3);
        Inbox inbox = new Inbox();
        startOrderly(world, world.name("orderly"), topic, (messages, context) -> {
            messages.forEach(inbox::add);
            boolean first = inbox.size() == 1;
            return first ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
        });
        inbox.waitFor(4);
        List<String> expected = new ArrayList<>(Arrays.asList(sent.get(0)));
        expected.addAll(sent);
        Check.same(expected, inbox.bodies(), "bodies in the order of the attempts");
    }
}
